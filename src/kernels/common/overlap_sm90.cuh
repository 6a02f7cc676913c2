// Programmatic dependent launch from within a kernel, on sm_90 and later; on older cards, whose
// launches never overlap, nothing. For kernels that cuda.cuh's LaunchOverlapped launches.
#pragma once

namespace seacliff::cuda {

// Waits until all earlier launches are done and their writes are seen.
__device__ inline void WaitForEarlier() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;\n" ::: "memory");
#endif
}
// Once all blocks have said so (or ended), blocks of the next launch may start where there is room.
__device__ inline void LetNextStart() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;\n");
#endif
}

}  // namespace seacliff::cuda
