package follow

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
)

// Range is bytes of virtual memory.
type Range struct {
	Address uint64
	Bytes   uint64
}

// ErrBadRange: a range that is empty or not in the user's half of the address space.
var ErrBadRange = errors.New("not a range of a program's memory")

// ErrTooLarge: more than MaxBytes are to be followed.
var ErrTooLarge = errors.New("too much memory to follow")

// MaxBytes bounds what one Follower follows, and so its memory (2 MiB a GiB) and time.
const MaxBytes = 256 << 30

// userEnd is the end of the addresses that a program can have, with 5-level page tables.
const userEnd = 1 << 56

// Normalize widens ranges to whole pages, sorts and joins them.
func Normalize(ranges []Range) ([]Range, error) {
	var all []Range
	for _, r := range ranges {
		if r.Bytes == 0 || r.Address >= userEnd || r.Bytes > userEnd-r.Address {
			return nil, fmt.Errorf("%w: %d bytes at %#x", ErrBadRange, r.Bytes, r.Address)
		}
		start := r.Address &^ (PageBytes - 1)
		end := (r.Address + r.Bytes + PageBytes - 1) &^ (PageBytes - 1)
		all = append(all, Range{start, end - start})
	}
	slices.SortFunc(all, func(a, b Range) int { return cmp.Compare(a.Address, b.Address) })
	out := all[:0]
	for _, r := range all {
		if n := len(out); n > 0 && r.Address <= out[n-1].Address+out[n-1].Bytes {
			out[n-1].Bytes = max(out[n-1].Bytes, r.Address+r.Bytes-out[n-1].Address)
		} else {
			out = append(out, r)
		}
	}
	return out, nil
}

// Subtract returns the pages of ranges that are not in minus. Both are as Normalize returns them.
func Subtract(ranges, minus []Range) []Range {
	var out []Range
	for _, r := range ranges {
		for _, m := range minus {
			if m.Address >= r.Address+r.Bytes || m.Address+m.Bytes <= r.Address {
				continue
			}
			if m.Address > r.Address {
				out = append(out, Range{r.Address, m.Address - r.Address})
			}
			end, cut := r.Address+r.Bytes, min(m.Address+m.Bytes, r.Address+r.Bytes)
			r = Range{cut, end - cut}
		}
		if r.Bytes > 0 {
			out = append(out, r)
		}
	}
	return out
}

// Bytes is the sum of ranges' sizes.
func Bytes(ranges []Range) uint64 {
	total := uint64(0)
	for _, r := range ranges {
		total += r.Bytes
	}
	return total
}
