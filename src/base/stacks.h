// The stacks of all threads of this process as text, for telling where it hangs. Linux alone. Each
// thread is interrupted by SIGURG, which does nothing where nobody handles it.
#pragma once

#include <string>

namespace seacliff {

// Names the calling thread, in stacks and for tools such as top; at most 15 characters.
void NameThread(const char* name);

// For each thread its number, name, state and stack, innermost call first: a name where the program
// exports one, and the place in the binary, which `addr2line -Cfe BINARY OFFSET` explains. A thread
// that does not answer within a fifth of a second (it is inside the kernel) has no stack. One call
// at a time.
std::string StacksOfAllThreads();

}  // namespace seacliff
