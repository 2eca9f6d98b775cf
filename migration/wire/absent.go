package wire

import (
	"encoding/binary"
	"iter"

	"github.com/fineline-vmm/fineline/memory"
)

// MaxRequestPages bounds the pages of one REQUEST.
const MaxRequestPages = 64

const requestPageBytes = 8

// AppendAbsent appends the payload of ABSENT: the pages, which ascend as those of PageSet.Range do, as
// runs. Each run is how many pages lie between it and the one before it (or page 0), and how many it
// has. One larger than the frame's cap is refused by Writer.Bytes.
func AppendAbsent(dst []byte, pages iter.Seq[memory.GPA]) []byte {
	var first, next, end uint64 // the open run is first to next-1, and the run before it ends at end
	for gpa := range pages {
		page := uint64(gpa) / memory.PageSize
		switch {
		case page < next:
			panic("wire: absent pages that do not ascend")
		case page > next || first == next:
			dst = appendRun(dst, first-end, next-first)
			first, end = page, next
		}
		next = page + 1
	}
	return appendRun(dst, first-end, next-first)
}

// appendRun appends a run, but not an empty one.
func appendRun(dst []byte, gap, count uint64) []byte {
	if count == 0 {
		return dst
	}
	return binary.AppendUvarint(binary.AppendUvarint(dst, gap), count)
}

// DecodeAbsent calls fn with every run of an ABSENT payload, in ascending order, until fn fails. limit is
// one more than the last page that may be in it: all calls together name at most that many pages. Runs
// do not touch, so there is one encoding of a set of runs.
func DecodeAbsent(payload []byte, limit uint64, fn func(first, count uint64) error) error {
	next := uint64(0) // page after the last run
	for begun := false; len(payload) > 0; begun = true {
		gap, n := binary.Uvarint(payload)
		count, m := binary.Uvarint(payload[max(n, 0):])
		if n <= 0 || m <= 0 {
			return protocolErrorf("ABSENT is cut short after page %#x", next)
		}
		payload = payload[n+m:]
		if count == 0 || gap == 0 && begun || gap > limit-next || count > limit-next-gap {
			return protocolErrorf("ABSENT has %d pages, %d after page %#x, where %#x are possible", count, gap, next, limit)
		}
		if err := fn(next+gap, count); err != nil {
			return err
		}
		next += gap + count
	}
	return nil
}

// AppendRequest appends the payload of REQUEST: 1 to MaxRequestPages page numbers.
func AppendRequest(dst []byte, pages []uint64) []byte {
	if len(pages) == 0 || len(pages) > MaxRequestPages {
		panic("wire: a request of no page, or of too many")
	}
	for _, page := range pages {
		dst = binary.LittleEndian.AppendUint64(dst, page)
	}
	return dst
}

// DecodeRequest appends the page numbers of a REQUEST payload to dst. They may repeat, and whether the
// pages exist is checked by whoever owns the memory.
func DecodeRequest(dst []uint64, payload []byte) ([]uint64, error) {
	if len(payload) == 0 || len(payload)%requestPageBytes != 0 || len(payload) > MaxRequestPages*requestPageBytes {
		return dst, protocolErrorf("REQUEST of %d bytes", len(payload))
	}
	for ; len(payload) > 0; payload = payload[requestPageBytes:] {
		page := binary.LittleEndian.Uint64(payload)
		if page >= maxPages {
			return dst, protocolErrorf("REQUEST has page %#x", page)
		}
		dst = append(dst, page)
	}
	return dst, nil
}
