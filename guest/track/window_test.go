package track_test

import (
	"encoding/json"
	"testing"

	"github.com/fineline-vmm/fineline/guest/track"
)

func TestMeasure(t *testing.T) {
	const mib = 1 << 20
	report := &track.Report{Present: 9, Pages: []track.Page{
		{Address: 0, Lines: ^uint64(0), Flags: track.New},
		{Address: 4096, Lines: 1, ChangedBytes: 8, Flags: track.Counted},
		{Address: 8192, Lines: 3, ChangedBytes: 16, Flags: track.Counted},
		{Address: 2 * mib, Lines: ^uint64(0), Flags: track.Moved},
		{Address: 4 * mib, Lines: 1 << 63, ChangedBytes: 8, Flags: track.Counted},
		{Address: 5 * mib, Lines: ^uint64(0), Flags: track.Inexact},
		{Address: 6 * mib, Lines: ^uint64(0), Flags: track.Gone},
	}}
	got, err := json.Marshal(track.Measure(report))
	if err != nil {
		t.Fatal(err)
	}
	// 3 pages of 4096 bytes and 2 of 2 MiB over 4 lines of 64, these over 32 bytes.
	const want = `{"lines":4,"pages":3,"pages_2m":2,"changed_bytes":32,"amplification_4k":48,"amplification_2m":16384,"amplification_64":8,` +
		`"moved_pages":1,"new_pages":1,"gone_pages":1,"inexact_pages":1,"present_pages":9}`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if w := track.Measure(&track.Report{}); w.Amplification4K != nil || w.Amplification64 != nil {
		t.Error("an amplification of nothing")
	}
}
