package predict

const (
	regionPages = 256 // 1 MiB
	regions     = 64
	firstAround = 8
)

// around names the wanted pages that are nearest to the miss, on both sides: the bubble around a
// pivot of Hines and Gopalan, "Post-copy based live virtual machine migration using adaptive
// pre-paging and dynamic self-ballooning" (VEE 2009). How many depends on how often this region
// has missed lately, so that a guest that goes from cluster to cluster gets more than one that
// goes anywhere.
type around struct {
	recent [regions]struct {
		region uint64
		misses int
	}
}

func newAround(*Options) strategy { return &around{} }

// note counts a miss or hit in the page's region, and returns how many came before it.
func (a *around) note(page uint64) int {
	region := page / regionPages
	r := &a.recent[region%regions]
	if r.region != region || r.misses == 0 {
		r.region, r.misses = region, 0
	}
	before := r.misses
	r.misses = min(before+1, 8)
	return before
}

func (a *around) miss(page uint64, out *picker) {
	window := min(firstAround<<a.note(page), out.room)
	goal := out.room - window
	for d := uint64(1); d <= uint64(reach*window) && out.room > goal; d++ {
		out.pick(page + d)
		if out.room > goal {
			out.pick(page - d)
		}
	}
}

func (a *around) hit(page uint64, _ *picker) { a.note(page) }
func (a *around) arrived(_ uint64, _ []byte) {}
