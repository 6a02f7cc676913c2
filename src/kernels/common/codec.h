// Decoding of weights and cache entries to f32, and the quantisation that activations and entries
// go through (spec/model.md 2.10, 3.3, chapter 4). Used by the reference rows and by tests; not
// fast.
#pragma once

#include <cstdint>

#include "tensor/matrix.h"
#include "tensor/paged_view.h"
#include "tensor/view.h"

namespace seacliff {

// Row `row` of a weight matrix as f32 (exact for every format).
void DecodeRow(const Matrix& w, int64_t row, float* out);

// x as the e4m3 values with a power-of-two scale for each `group` would give it back.
void RoundTripE4m3(float* x, int64_t count, int64_t group);
// The same for e2m1 in groups of 32.
void RoundTripE2m1(float* x, int64_t count);

// Rotates pairs (2i, 2i+1) of x[0..2n) by position * frequency[i] (sign -1: back). The angle is an
// f32 product, as in the official code, so that long contexts see the same angles.
void Rotate(float* x, int64_t n, const float* frequency, int64_t position, float sign);

// Walsh-Hadamard transform in natural order, scaled by count^-1/2; count is a power of two.
void Hadamard(float* x, int64_t count);

// Writes entry `slot` of a page (quantising as the format says) and reads it back. `x` has
// view.dim values.
void StoreEntry(const PagedView& view, int64_t page, int64_t slot, const float* x);
void LoadEntry(const PagedView& view, int64_t page, int64_t slot, float* x);

// Sum of a[i] * b[i] in double.
double Dot(const float* a, const float* b, int64_t count);
// The same of quantised activations: the sum of each `block` is one f32 value, and they add up in
// f32 in ascending order. So the official kernels do it, whose blocks are exact (products of e4m3
// values) or nearly so.
float BlockedDot(const float* a, const float* b, int64_t count, int64_t block);

}  // namespace seacliff
