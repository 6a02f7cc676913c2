// The seacliff command line.
int main() { return 0; }
