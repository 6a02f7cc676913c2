// The host's side of the peer kernels: inboxes that every rank can write, and launches.
#include <algorithm>
#include <atomic>
#include <type_traits>
#include <utility>
#include <vector>

#include "parallel/peer.h"
#include "parallel/peer_kernels.cuh"

namespace seacliff {
namespace {

using peer::kMaxBlocks;
using peer::kMaxRanks;

constexpr uint32_t kStoppedByHost = 1;
constexpr int kThreads = 512, kFewThreads = 128;

std::string Text(cudaError_t code) { return cudaGetErrorString(code); }

// Memory of a device that the other devices may use too. A pool of its own: memory that is
// everyone's is slower to take and to give back, and giving it back may wait for the others.
class SharedMemory {
 public:
  SharedMemory(Device& device, void* data, cudaMemPool_t pool)
      : device_(device), data_(data), pool_(pool) {}
  ~SharedMemory() {
    const auto stream = static_cast<cudaStream_t>(device_.stream());
    if (pool_ != nullptr) {
      cudaFreeAsync(data_, stream);
      cudaStreamSynchronize(stream);
      cudaMemPoolDestroy(pool_);
    } else {
      cudaStreamSynchronize(stream);
      cudaFreeHost(data_);
    }
  }
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;
  void* data() const { return data_; }

 private:
  Device& device_;
  void* data_;
  cudaMemPool_t pool_;  // null: the host's memory
};

Result<std::unique_ptr<SharedMemory>> OnDevice(Device& device, int64_t bytes,
                                               std::span<Device* const> users) {
  const auto stream = static_cast<cudaStream_t>(device.stream());
  cudaMemPoolProps props = {};
  props.allocType = cudaMemAllocationTypePinned;
  props.location = {cudaMemLocationTypeDevice, device.gpu().index};
  cudaMemPool_t pool = nullptr;
  void* data = nullptr;
  cudaError_t code = cudaMemPoolCreate(&pool, &props);
  std::vector<cudaMemAccessDesc> access;
  for (const Device* user : users) {
    if (user->gpu().index == device.gpu().index) continue;
    cudaMemAccessDesc desc = {};
    desc.location = {cudaMemLocationTypeDevice, user->gpu().index};
    desc.flags = cudaMemAccessFlagsProtReadWrite;
    access.push_back(desc);
  }
  if (code == cudaSuccess && !access.empty()) {
    code = cudaMemPoolSetAccess(pool, access.data(), access.size());
  }
  if (code == cudaSuccess) {
    code = cudaMallocFromPoolAsync(&data, static_cast<size_t>(bytes), pool, stream);
  }
  if (code == cudaSuccess) code = cudaMemsetAsync(data, 0xff, static_cast<size_t>(bytes), stream);
  if (code == cudaSuccess) code = cudaStreamSynchronize(stream);
  if (code != cudaSuccess) {
    cudaGetLastError();
    if (pool != nullptr) cudaMemPoolDestroy(pool);
    return Exhausted("CUDA: " + std::to_string(bytes) + " bytes that other GPUs can use, on GPU " +
                     std::to_string(device.gpu().index) + ": " + Text(code));
  }
  return std::make_unique<SharedMemory>(device, data, pool);
}

Result<std::unique_ptr<SharedMemory>> OnHost(Device& device, int64_t bytes, uint8_t fill) {
  void* data = nullptr;
  device.stream();
  const cudaError_t code =
      cudaHostAlloc(&data, static_cast<size_t>(bytes), cudaHostAllocPortable | cudaHostAllocMapped);
  if (code != cudaSuccess) {
    cudaGetLastError();
    return Exhausted("CUDA: " + std::to_string(bytes) +
                     " bytes of host memory that GPUs can use: " + Text(code));
  }
  std::fill_n(static_cast<uint8_t*>(data), bytes, fill);
  return std::make_unique<SharedMemory>(device, data, nullptr);
}

// The memory that `device` reads and all `users` write.
Result<std::unique_ptr<SharedMemory>> Inbox(Device& device, int64_t bytes,
                                            std::span<Device* const> users) {
  std::vector<Gpu> gpus;
  for (const Device* user : users) gpus.push_back(user->gpu());
  if (!PeerMemory::WhyNotDirect(gpus).empty()) return OnHost(device, bytes, 0xff);
  return OnDevice(device, bytes, users);
}

__global__ void Write(uint4* to, int64_t vectors) {
  const int64_t step = int64_t{gridDim.x} * blockDim.x;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < vectors; i += step) {
    to[i] = make_uint4(1, 2, 3, 4);
  }
}

class CudaPeerMemory : public PeerMemory {
 public:
  // Rank r of `size` on devices[r]. With fewer devices the other ranks are echoes.
  static Result<std::unique_ptr<PeerMemory>> Make(std::span<Device* const> devices, int32_t size,
                                                  uint64_t patience) {
    auto memory = std::make_unique<CudaPeerMemory>();
    const auto present = static_cast<int32_t>(devices.size());
    if (size > kMaxRanks) {
      return Unimplemented("the GPUs of one host are at most " + std::to_string(kMaxRanks) +
                           ", not " + std::to_string(size));
    }
    memory->chunk_ = size <= 2 ? 8192 : 2048;  // slots of 4 or 1 MB
    const int64_t areas = size <= 2 ? 1 : 2;
    const int64_t bytes = areas * size * 2 * memory->SlotBytes();
    SC_ASSIGN_OR_RETURN(memory->stop_, OnHost(*devices[0], 64, 0));
    for (Device* device : devices) {
      SC_ASSIGN_OR_RETURN(auto inbox, Inbox(*device, bytes, devices));
      memory->inboxes_.push_back(std::move(inbox));
    }
    for (int rank = 0; rank < present; ++rank) {
      Device& device = *devices[static_cast<size_t>(rank)];
      // The counts of uses, and 16 numbers to Meet with.
      memory->own_.push_back(device.Allocate(kMaxBlocks * 4 + 64, "collectives"));
      SC_RETURN_IF_ERROR(device.Synchronize());
      peer::Group group = {};
      for (int r = 0; r < present; ++r) {
        group.inbox[r] = static_cast<uint4*>(memory->inboxes_[static_cast<size_t>(r)]->data());
      }
      group.own = group.inbox[rank];
      for (int r = present; r < size; ++r) {  // rank 0's place there is rank r's place here
        group.inbox[r] = group.own + r * 2 * memory->SlotBytes() / 16;
      }
      group.uses = static_cast<uint32_t*>(memory->own_.back().data());
      group.stop = static_cast<uint32_t*>(memory->stop_->data());
      group.chunk = memory->chunk_;
      group.patience = patience;
      group.rank = rank;
      group.size = size;
      group.echo = present < size;
      memory->groups_.push_back(group);
    }
    return std::unique_ptr<PeerMemory>(std::move(memory));
  }

  int64_t OneShotBytes() const override { return SlotBytes(); }
  int64_t TwoShotBytes() const override {
    return size() <= 2 || groups_[0].echo ? 0 : SlotBytes() * size();
  }

  void OneShot(Context& k, int32_t rank, Act<2> v) override {
    ForPieces(v, OneShotBytes(), [&](auto message) { LaunchOneShot(k, rank, message); });
  }
  void TwoShot(Context& k, int32_t rank, Act<2> v) override {
    SC_CHECK(TwoShotBytes() > 0);
    ForPieces(v, TwoShotBytes(), [&](auto message) {
      // The last piece of a long message may be too short.
      if (message.vectors() * 16 < kTwoShotLeast) return LaunchOneShot(k, rank, message);
      LaunchTwoShot(k, rank, message);
    });
  }
  void Gather(Context& k, int32_t rank, View<const float, 2> v, View<float, 2> all) override {
    SC_CHECK(v.stride[1] == 1 && (v.shape[0] <= 1 || v.stride[0] == v.shape[1]));
    const Act<2> numbers(const_cast<float*>(v.data), DType::kF32, v.shape);  // is only read
    int64_t begin = 0;
    ForPieces(numbers, SlotBytes(), [&](auto message) {
      if constexpr (std::is_same_v<decltype(message), peer::Message<float>>) {
        const peer::Table table = {all.data, all.stride[0], v.shape[1], begin};
        Launch(k, rank, "gather", peer::Gather, message.vectors(), message, table);
        begin += message.count;
      }
    });
  }
  void Meet(Context& k, int32_t rank) override {
    auto* numbers = groups_[static_cast<size_t>(rank)].uses + kMaxBlocks;
    LaunchOneShot(k, rank, peer::Message<float>{reinterpret_cast<float*>(numbers), 4, true});
  }

  void Stop() override { Word().store(kStoppedByHost, std::memory_order_relaxed); }
  Stopped stopped() const override {
    const uint32_t word = Word().load(std::memory_order_relaxed);
    if (word <= kStoppedByHost) return {word != 0, -1, -1};
    return {true, static_cast<int32_t>(word >> 4 & 15), static_cast<int32_t>(word & 15)};
  }

 private:
  int size() const { return groups_[0].size; }
  int64_t SlotBytes() const { return chunk_ * kMaxBlocks * 16; }
  std::atomic_ref<uint32_t> Word() const {
    return std::atomic_ref<uint32_t>(*static_cast<uint32_t*>(stop_->data()));
  }

  // Messages of at most `most` bytes, all but the last of just that.
  template <typename Run>
  static void ForPieces(Act<2> v, int64_t most, const Run& run) {
    const int64_t numbers = v.size(), of_piece = most / SizeOf(v.dtype);
    const auto pieces = [&](auto* data) {
      const bool aligned = reinterpret_cast<uintptr_t>(data) % 16 == 0;
      for (int64_t at = 0; at < numbers; at += of_piece) {
        run(peer::Message<std::remove_pointer_t<decltype(data)>>{
            data + at, std::min(of_piece, numbers - at), aligned});
      }
    };
    v.exact() ? pieces(static_cast<float*>(v.data)) : pieces(static_cast<Bf16*>(v.data));
  }

  // Few threads a block where that spreads a short message over more of the card. The grid is the
  // same on all ranks, whatever their cards.
  template <typename Kernel, typename... Args>
  void Launch(Context& k, int32_t rank, const char* name, Kernel kernel, int64_t vectors,
              Args... args) {
    const int threads = vectors <= kMaxBlocks * kFewThreads ? kFewThreads : kThreads;
    const int64_t blocks = std::min<int64_t>(cuda::CeilDiv(vectors, threads), kMaxBlocks);
    cuda::LaunchOverlapped(k, name, kernel, dim3(static_cast<uint32_t>(blocks)),
                           dim3(static_cast<uint32_t>(threads)), 0,
                           groups_[static_cast<size_t>(rank)], args...);
  }
  template <typename T>
  void LaunchOneShot(Context& k, int32_t rank, const peer::Message<T>& m) {
    Launch(k, rank, "all_reduce",
           size() <= 2   ? peer::OneShot<T, 2, 2>
           : size() <= 4 ? peer::OneShot<T, 4, 1>
                         : peer::OneShot<T, 8, 1>,
           m.vectors(), m);
  }
  template <typename T>
  void LaunchTwoShot(Context& k, int32_t rank, const peer::Message<T>& m) {
    Launch(k, rank, "all_reduce", size() <= 4 ? peer::TwoShot<T, 4> : peer::TwoShot<T, 8>,
           cuda::CeilDiv(m.vectors(), int64_t{size()}), m);
  }

  int64_t chunk_ = 0;
  std::unique_ptr<SharedMemory> stop_;
  std::vector<std::unique_ptr<SharedMemory>> inboxes_;
  std::vector<Buffer> own_;
  std::vector<peer::Group> groups_;
};

}  // namespace

std::string PeerMemory::WhyNotDirect(std::span<const Gpu> gpus) {
  for (const Gpu& from : gpus) {
    for (const Gpu& to : gpus) {
      if (from.index == to.index) continue;
      int can = 0;
      if (cudaDeviceCanAccessPeer(&can, from.index, to.index) == cudaSuccess && can != 0) continue;
      cudaGetLastError();
      return "GPU " + std::to_string(from.index) + " cannot write the memory of GPU " +
             std::to_string(to.index);
    }
  }
  return "";
}

Result<double> PeerMemory::MeasureLink(Device& from, Device& to) {
  constexpr int64_t kBytes = int64_t{256} << 20;
  Device* const users[] = {&from, &to};
  SC_ASSIGN_OR_RETURN(const auto memory, Inbox(to, kBytes, users));
  double best = 0;
  for (int i = 0; i < 5; ++i) {
    const double microseconds = from.Time([&] {
      Write<<<from.gpu().multiprocessors, 512, 0, static_cast<cudaStream_t>(from.stream())>>>(
          static_cast<uint4*>(memory->data()), kBytes / 16);
    });
    best = std::max(best, 1e-3 * static_cast<double>(kBytes) / microseconds);
  }
  SC_RETURN_IF_ERROR(from.Synchronize());
  return best;
}

Result<std::unique_ptr<PeerMemory>> PeerMemory::Make(std::span<Device* const> devices, int32_t size,
                                                     uint64_t patience) {
  return CudaPeerMemory::Make(devices, size, patience);
}

}  // namespace seacliff
