package boot

import (
	"fmt"
	"sort"

	"github.com/fineline-vmm/fineline/memory"
)

// span is a half-open range of guest addresses, with a name for messages.
type span struct {
	start, end uint64
	name       string
}

func (s span) overlaps(o span) bool { return s.start < o.end && o.start < s.end }

func (s span) String() string {
	return fmt.Sprintf("%s (%#x-%#x)", s.name, s.start, s.end-1)
}

// sized makes a span from untrusted numbers.
func sized(start, sizeBytes uint64, name string) (span, error) {
	end := start + sizeBytes
	if end < start {
		return span{}, fmt.Errorf("%w: %s at %#x with %#x bytes passes the end of the address space", ErrNoRoom, name, start, sizeBytes)
	}
	return span{start, end, name}, nil
}

// room is the ledger of guest memory: what is RAM, what of it the memory map calls usable, what is taken.
// The loader's own choices lie in usable RAM. A kernel that is linked elsewhere gets the place if it is RAM:
// the usual link at 1 MiB has its ELF header just below, in what a PC reserves for its BIOS.
type room struct {
	ram    []span
	usable []span // within ram, sorted, disjoint, not touching
	taken  []span
}

func newRoom(regions []memory.Region, e820 []E820Entry) *room {
	var ram, usable, closed []span
	for _, r := range regions {
		ram = append(ram, E820Entry{Base: r.Base, SizeBytes: r.SizeBytes}.span(""))
	}
	for _, e := range e820 {
		if e.Type == E820RAM {
			usable = append(usable, e.span(""))
		} else {
			closed = append(closed, e.span(""))
		}
	}
	ram, usable, closed = merge(ram), merge(usable), merge(closed) // without the empty ones
	return &room{ram: ram, usable: subtract(intersect(usable, ram), closed)}
}

// claim takes s, or says what is in the way.
func (r *room) claim(s span) error {
	if !contains(r.ram, s) {
		return fmt.Errorf("%w: %v lies outside RAM, which is %v; give the guest more memory", ErrNoRoom, s, describeSpans(r.ram))
	}
	for _, t := range r.taken {
		if s.overlaps(t) {
			return fmt.Errorf("%w: %v overlaps %v", ErrNoRoom, s, t)
		}
	}
	r.taken = append(r.taken, s)
	return nil
}

// claimUsable is claim for what should not lie in what the memory map reserves.
func (r *room) claimUsable(s span) error {
	if contains(r.ram, s) && !contains(r.usable, s) {
		return fmt.Errorf("%w: %v overlaps a range that the memory map reserves; usable is %v", ErrNoRoom, s, describeSpans(r.usable))
	}
	return r.claim(s)
}

// lowest finds the first aligned place for sizeBytes in [from, below); alignBytes is a power of two.
func (r *room) lowest(sizeBytes, alignBytes, from, below uint64) (uint64, bool) {
	for _, f := range r.free() {
		start, ok := alignUp(max(f.start, from), alignBytes)
		end := min(f.end, below)
		if ok && start < end && sizeBytes <= end-start {
			return start, true
		}
	}
	return 0, false
}

// highest finds the last page-aligned place for sizeBytes in [from, below).
func (r *room) highest(sizeBytes, from, below uint64) (uint64, bool) {
	free := r.free()
	for i := len(free) - 1; i >= 0; i-- {
		start, end := max(free[i].start, from), min(free[i].end, below)
		if start >= end || sizeBytes > end-start {
			continue
		}
		if at := (end - sizeBytes) &^ (memory.PageSize - 1); at >= start {
			return at, true
		}
	}
	return 0, false
}

func (r *room) free() []span { return subtract(r.usable, r.taken) }

// largestFree is for messages.
func (r *room) largestFree(from, below uint64) uint64 {
	var largest uint64
	for _, f := range r.free() {
		if start, end := max(f.start, from), min(f.end, below); start < end {
			largest = max(largest, end-start)
		}
	}
	return largest
}

func alignUp(v, alignBytes uint64) (uint64, bool) {
	up := (v + alignBytes - 1) &^ (alignBytes - 1)
	return up, up >= v
}

// merge sorts spans and joins those that touch or overlap.
func merge(in []span) []span {
	sort.Slice(in, func(i, j int) bool { return in[i].start < in[j].start })
	var out []span
	for _, s := range in {
		switch last := len(out) - 1; {
		case s.start >= s.end:
		case last >= 0 && s.start <= out[last].end:
			out[last].end = max(out[last].end, s.end)
		default:
			out = append(out, s)
		}
	}
	return out
}

func intersect(a, b []span) []span {
	var out []span
	for _, x := range a {
		for _, y := range b {
			if x.overlaps(y) {
				out = append(out, span{start: max(x.start, y.start), end: min(x.end, y.end)})
			}
		}
	}
	return merge(out)
}

func subtract(from, what []span) []span {
	out := from
	for _, w := range what {
		var next []span
		for _, s := range out {
			if !s.overlaps(w) {
				next = append(next, s)
				continue
			}
			if s.start < w.start {
				next = append(next, span{start: s.start, end: w.start})
			}
			if w.end < s.end {
				next = append(next, span{start: w.end, end: s.end})
			}
		}
		out = next
	}
	return out
}

func contains(in []span, s span) bool {
	for _, x := range in {
		if x.start <= s.start && s.end <= x.end {
			return true
		}
	}
	return false
}

func describeSpans(in []span) string {
	if len(in) == 0 {
		return "empty"
	}
	text := ""
	for i, s := range in {
		if i > 0 {
			text += ", "
		}
		text += fmt.Sprintf("%#x-%#x", s.start, s.end-1)
	}
	return text
}
