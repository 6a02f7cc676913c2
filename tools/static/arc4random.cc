// arc4random for the self-contained binary: the static libstdc++ asks for it (std::random_device),
// and only glibc 2.36 has it.
#include <sys/random.h>

#include <cstdint>
#include <cstdlib>

extern "C" uint32_t arc4random() noexcept {
  uint32_t value = 0;
  // So few bytes come whole or not at all.
  while (getrandom(&value, sizeof(value), 0) != sizeof(value)) {
  }
  return value;
}
