package follow

import (
	"iter"
	"maps"
	"slices"

	"github.com/fineline-vmm/fineline/guest/track/abi"
)

// owners says which pages are in which frame. Nearly all frames have one; memory that is mapped twice, the
// kernel's zero page and merged pages have more.
type owners struct {
	first map[uint64]uint64          // frame, address of a page
	more  map[uint64]map[uint64]bool // the further pages
	extra int                        // how many those are
}

// add says whether the frame had no page before.
func (o *owners) add(frame, address uint64) bool {
	if _, ok := o.first[frame]; !ok {
		o.first[frame] = address
		return true
	}
	if o.more[frame] == nil {
		o.more[frame] = map[uint64]bool{}
	}
	o.more[frame][address] = true
	o.extra++
	return false
}

// drop says whether the frame has no page any more.
func (o *owners) drop(frame, address uint64) bool {
	more := o.more[frame]
	if len(more) == 0 {
		delete(o.first, frame)
		return true
	}
	if o.first[frame] == address {
		for address = range more { // any of them
			break
		}
		o.first[frame] = address
	}
	delete(more, address)
	o.extra--
	if len(more) == 0 {
		delete(o.more, frame)
	}
	return false
}

func (o *owners) of(frame uint64) iter.Seq[uint64] {
	return func(yield func(uint64) bool) {
		address, ok := o.first[frame]
		if !ok || !yield(address) {
			return
		}
		for address := range o.more[frame] {
			if !yield(address) {
				return
			}
		}
	}
}

func (o *owners) pages() int { return len(o.first) + o.extra }

// register registers frames that have got their first page. One that others left a moment ago is taken away
// first: what the device knows of it is theirs.
func (f *Follower) register(fresh []uint64) error {
	var again []uint64
	for _, frame := range fresh {
		if f.stale[frame] {
			delete(f.stale, frame)
			again = append(again, frame)
		}
	}
	if err := f.unregister(again); err != nil || len(fresh) == 0 {
		return err
	}
	return f.context.Register(join(fresh))
}

func (f *Follower) unregisterStale() error {
	frames := slices.Collect(maps.Keys(f.stale))
	clear(f.stale)
	return f.unregister(frames)
}

func (f *Follower) unregister(frames []uint64) error {
	if len(frames) == 0 {
		return nil
	}
	return f.context.Unregister(join(frames))
}

// join sorts frames and makes ranges of neighbours.
func join(frames []uint64) []abi.Range {
	slices.Sort(frames)
	var ranges []abi.Range
	for _, frame := range slices.Compact(frames) {
		address := frame * PageBytes
		if n := len(ranges); n > 0 && ranges[n-1].Address+ranges[n-1].Bytes == address {
			ranges[n-1].Bytes += PageBytes
		} else {
			ranges = append(ranges, abi.Range{Address: address, Bytes: PageBytes})
		}
	}
	return ranges
}
