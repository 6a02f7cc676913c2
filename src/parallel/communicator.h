// How the ranks of one model talk in a step: each holds a slice of the weights, and what they made
// of it is added up. Every rank calls the same functions in the same order with the same shapes;
// none is ever skipped, whatever happened on a rank before (Context errors included).
//
// Ranks of one host are threads of one process, over CPU memory or with a GPU each; ranks of
// several hosts talk over TCP. Where one of them fails, or does not come, every wait ends with the
// same error on all.
#pragma once

#include <cstdint>

#include "base/status.h"
#include "kernels/context.h"
#include "tensor/view.h"

namespace seacliff {

class Communicator {
 public:
  virtual ~Communicator() = default;
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;

  int32_t rank() const { return rank_; }
  int32_t size() const { return size_; }
  // Whether there is a rank to wait for.
  virtual bool waits() const { return size_ > 1; }

  // v becomes the sum of all ranks' v: added in f32 in the order of ranks, then rounded once, so
  // that all ranks hold the same bits. On the host this returns when it is done; on a device it is
  // launched in the stream's order, may be recorded into a graph, and `v` is device memory.
  // Errors, of any rank, go to k.Fail.
  virtual void AllReduce(Context& k, Act<2> v) = 0;

  // Rank 0's `all`: [rows, size * columns] gets every rank's v: [rows, columns], side by side in
  // the order of ranks. Other ranks leave `all` empty. As AllReduce otherwise.
  virtual void Gather(Context& k, View<const float, 2> v, View<float, 2> all) = 0;

  // Ends every wait of every rank, now and from now on, with `why`; the first call counts.
  virtual void Abort(const Status& why) = 0;
  // Why it was aborted; ok if it was not.
  virtual Status error() const = 0;

 protected:
  Communicator(int32_t rank, int32_t size) : rank_(rank), size_(size) {}

 private:
  const int32_t rank_, size_;
};

}  // namespace seacliff
