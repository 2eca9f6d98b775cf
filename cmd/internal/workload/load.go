package workload

import "fmt"

// Name is the guest's name among the built-in ones.
const Name = "dirty"

// Load is what the guest writes, for ever.
type Load struct {
	VCPUs   int    `json:"vcpus"`
	Pages   uint64 `json:"pages"`
	Lines   uint64 `json:"lines"`          // written lines of each page, 1 to 64
	Pattern string `json:"pattern"`        // seq, random, zipf, stride or cluster
	Rate    uint64 `json:"rate"`           // lines a second of each vCPU, 0: as fast as it can
	Base    uint64 `json:"base,omitempty"` // first address of the region; 0: after the guest's image
}

// Cmdline is the guest's command line. The guest does not report by itself, because a port
// exit costs as much as hundreds of stores, and does not look before it writes.
func (l Load) Cmdline() string {
	text := fmt.Sprintf("vcpus=%d pages=%d lines=%d pattern=%s rate=%d verify=0 progress=0",
		l.VCPUs, l.Pages, l.Lines, l.Pattern, l.Rate)
	if l.Base != 0 {
		text += fmt.Sprintf(" base=%#x", l.Base)
	}
	return text
}

// String is the load in words.
func (l Load) String() string {
	pace := "as fast as it can"
	if l.Rate != 0 {
		pace = fmt.Sprintf("%d lines/s", l.Rate*uint64(l.VCPUs))
	}
	return fmt.Sprintf("%d pages, %d of 64 lines each, %s, %s", l.Pages, l.Lines, l.Pattern, pace)
}
