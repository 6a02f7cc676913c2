// The few functions of NCCL that are used, by their C interface: types and numbers are those of
// its version 2.
#include "parallel/nccl.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>

namespace seacliff {
namespace {

constexpr int kSuccess = 0, kFloat32 = 7, kBfloat16 = 9, kSum = 0;

// Where pip and distributions put it, beside what the loader knows.
std::vector<std::string> Places() {
  namespace fs = std::filesystem;
  std::vector<std::string> places = {"libnccl.so.2"};
  for (const char* root : {"/usr/local/lib", "/usr/lib"}) {
    std::error_code ignored;
    for (const auto& entry : fs::directory_iterator(root, ignored)) {
      if (!entry.path().filename().string().starts_with("python3")) continue;
      for (const char* packages : {"site-packages", "dist-packages"}) {
        const fs::path file = entry.path() / packages / "nvidia/nccl/lib/libnccl.so.2";
        if (fs::exists(file, ignored)) places.push_back(file.string());
      }
    }
  }
  return places;
}

}  // namespace

struct Nccl::Library {
  std::string file;
  int (*get_version)(int*);
  const char* (*error_string)(int);
  int (*init_all)(void** comms, int count, const int* devices);
  int (*all_reduce)(const void* from, void* to, size_t count, int type, int op, void* comm,
                    void* stream);
  int (*group_start)();
  int (*group_end)();
  int (*destroy)(void* comm);
  int (*abort)(void* comm);

  // Empty if all functions are there.
  std::string Find(void* handle) {
    const auto find = [handle](auto& function, const char* symbol) {
      function =
          reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(handle, symbol));
      return function != nullptr ? "" : fmt::format("it has no {}", symbol);
    };
    std::string missing;
    const auto need = [&](auto& function, const char* symbol) {
      if (missing.empty()) missing = find(function, symbol);
    };
    need(get_version, "ncclGetVersion");
    need(error_string, "ncclGetErrorString");
    need(init_all, "ncclCommInitAll");
    need(all_reduce, "ncclAllReduce");
    need(group_start, "ncclGroupStart");
    need(group_end, "ncclGroupEnd");
    need(destroy, "ncclCommDestroy");
    need(abort, "ncclCommAbort");
    return missing;
  }
  Status Check(int code, const char* what) const {
    if (code == kSuccess) return OkStatus();
    return Unavailable(fmt::format("NCCL: {}: {}", what, error_string(code)));
  }
};

Result<std::unique_ptr<Nccl::Library>> Nccl::Load(const std::string& file) {
  auto library = std::make_unique<Library>();
  // Multicast connects at the first message that is long enough, which may be in a step.
  setenv("NCCL_NVLS_ENABLE", "0", /*overwrite=*/0);
  void* handle = nullptr;
  std::string why;
  for (const std::string& place : file.empty() ? Places() : std::vector{file}) {
    handle = dlopen(place.c_str(), RTLD_NOW | RTLD_LOCAL);
    library->file = place;
    if (handle != nullptr) break;
    if (why.empty()) why = dlerror();
  }
  if (handle == nullptr) return NotFound("NCCL: " + why);
  const std::string missing = library->Find(handle);
  if (!missing.empty()) return Unimplemented(fmt::format("NCCL: {}: {}", library->file, missing));
  return library;
}

Result<std::string> Nccl::Find(const std::string& library) {
  SC_ASSIGN_OR_RETURN(const auto found, Load(library));
  int version = 0;
  SC_RETURN_IF_ERROR(found->Check(found->get_version(&version), "its version"));
  return fmt::format("{}.{}.{}, {}", version / 10000, version / 100 % 100, version % 100,
                     found->file);
}

Result<std::unique_ptr<Nccl>> Nccl::Make(std::span<Device* const> devices,
                                         const std::string& library) {
  if (devices.size() != 2) return Unimplemented("NCCL: is used between two ranks");
  std::vector<int> indices;
  for (Device* device : devices) indices.push_back(device->gpu().index);
  if (indices[0] == indices[1]) return Unimplemented("NCCL: does not take two ranks on one GPU");
  std::unique_ptr<Nccl> nccl(new Nccl);
  SC_ASSIGN_OR_RETURN(nccl->library_, Load(library));
  const Library& calls = *nccl->library_;
  std::vector<void*> comms(indices.size());
  SC_RETURN_IF_ERROR(calls.Check(
      calls.init_all(comms.data(), static_cast<int>(indices.size()), indices.data()), "starting"));
  for (void* comm : comms) {
    nccl->ranks_.push_back(std::make_unique<Rank>());
    nccl->ranks_.back()->comm = comm;
  }
  // What NCCL sets up at first use, it sets up here, where nobody waits with a lock.
  constexpr int64_t kFew = 256, kMany = 8 << 20;  // bytes: one message of each kind
  std::vector<Buffer> numbers;
  for (Device* device : devices) numbers.push_back(device->Allocate(kMany, "NCCL"));
  for (const int64_t bytes : {kFew, kMany}) {
    calls.group_start();
    for (size_t r = 0; r < comms.size(); ++r) {
      calls.all_reduce(numbers[r].data(), numbers[r].data(), static_cast<size_t>(bytes / 4),
                       kFloat32, kSum, comms[r], devices[r]->stream());
    }
    SC_RETURN_IF_ERROR(calls.Check(calls.group_end(), "the first all-reduces"));
    for (Device* device : devices) SC_RETURN_IF_ERROR(device->Synchronize());
  }
  return nccl;
}

Nccl::~Nccl() {
  for (const auto& rank : ranks_) {
    if (rank->comm != nullptr) library_->destroy(rank->comm);
  }
}

void Nccl::AllReduce(Context& k, int32_t rank, Act<2> v) {
  Rank& own = *ranks_[static_cast<size_t>(rank)];
  void* stream = k.device()->stream();
  const std::lock_guard lock(own.mutex);
  if (own.comm == nullptr) return;
  const Status status = library_->Check(
      library_->all_reduce(v.data, v.data, static_cast<size_t>(v.size()),
                           v.exact() ? kFloat32 : kBfloat16, kSum, own.comm, stream),
      "an all-reduce");
  if (!status.ok()) k.Fail(status);
}

void Nccl::Abort() {
  for (const auto& rank : ranks_) {
    const std::lock_guard lock(rank->mutex);
    if (rank->comm != nullptr) library_->abort(rank->comm);
    rank->comm = nullptr;
  }
}

}  // namespace seacliff
