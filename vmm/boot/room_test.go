package boot

import (
	"slices"
	"testing"

	"github.com/fineline-vmm/fineline/memory"
	"pgregory.net/rapid"
)

// TestRoomKeepsThingsApart draws memory maps and claims, and checks the ledger byte by byte (in units).
func TestRoomKeepsThingsApart(t *testing.T) {
	const unit, units = memory.PageSize, 64
	rapid.Check(t, func(t *rapid.T) {
		ramUnits := rapid.IntRange(1, units).Draw(t, "ram")
		regions := []memory.Region{{Base: 0, SizeBytes: uint64(ramUnits) * unit}}
		var usable, taken [units]bool
		var e820 []E820Entry
		for range rapid.IntRange(0, 6).Draw(t, "entries") {
			from, n := rapid.IntRange(0, units-1).Draw(t, "from"), rapid.IntRange(0, units).Draw(t, "n")
			kind := rapid.SampledFrom([]E820Type{E820RAM, E820RAM, E820Reserved, E820ACPI}).Draw(t, "type")
			e820 = append(e820, E820Entry{Base: memory.GPA(from) * unit, SizeBytes: uint64(n) * unit, Type: kind})
		}
		for i := range usable {
			is := func(wantRAM bool) (in bool) {
				for _, e := range e820 {
					at := memory.GPA(i) * unit
					in = in || (e.Type == E820RAM) == wantRAM && at >= e.Base && at < e.Base+memory.GPA(e.SizeBytes)
				}
				return in
			}
			usable[i] = i < ramUnits && is(true) && !is(false)
		}
		allUsable := func(at, n uint64) bool { return !slices.Contains(usable[at:at+n], false) }
		r := newRoom(regions, e820)
		for range rapid.IntRange(1, 12).Draw(t, "claims") {
			n := rapid.Uint64Range(1, 8).Draw(t, "size")
			from, below := rapid.Uint64Range(0, units).Draw(t, "low")*unit, rapid.Uint64Range(0, units+8).Draw(t, "high")*unit
			var start uint64
			ok := true
			switch rapid.IntRange(0, 2).Draw(t, "how") {
			case 0:
				start = from
			case 1:
				align := uint64(unit) << rapid.IntRange(0, 3).Draw(t, "align")
				if start, ok = r.lowest(n*unit, align, from, below); ok && (start%align != 0 || start < from || start+n*unit > below || !allUsable(start/unit, n)) {
					t.Fatalf("lowest gave %#x", start)
				}
			default:
				if start, ok = r.highest(n*unit, from, below); ok && (start < from || start+n*unit > below || !allUsable(start/unit, n)) {
					t.Fatalf("highest gave %#x", start)
				}
			}
			if !ok {
				continue
			}
			fits := true
			for u := start / unit; u < start/unit+n; u++ {
				fits = fits && u < uint64(ramUnits) && !taken[u]
			}
			if err := r.claim(span{start, start + n*unit, "a claim"}); (err == nil) != fits {
				t.Fatalf("claim of %d units at %d: %v, fits %v", n, start/unit, err, fits)
			}
			for u := start / unit; fits && u < start/unit+n; u++ {
				taken[u] = true
			}
		}
	})
}

// An empty entry of the memory map once split the RAM around it.
func TestRoomIgnoresEmptyEntries(t *testing.T) {
	r := newRoom([]memory.Region{{SizeBytes: 0x8000}}, []E820Entry{
		{SizeBytes: 0x8000, Type: E820RAM}, {Base: 0x4000, Type: E820Reserved},
	})
	if err := r.claim(span{0x3000, 0x5000, "across"}); err != nil {
		t.Error(err)
	}
}

func TestLowestAndHighestFindTheExtremes(t *testing.T) {
	r := newRoom([]memory.Region{{Base: 0, SizeBytes: 0x10000}}, []E820Entry{{Base: 0, SizeBytes: 0x10000, Type: E820RAM}})
	if err := r.claim(span{0x4000, 0x8000, "the middle"}); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name             string
		size, low, below uint64
		lowest, highest  uint64
		ok               bool
	}{
		{"both sides", 0x1000, 0, 1 << 32, 0, 0xf000, true},
		{"not a page multiple", 0x1001, 0, 1 << 32, 0, 0xe000, true},
		{"only above", 0x5000, 0, 1 << 32, 0x8000, 0xb000, true},
		{"only below", 0x1000, 0x1000, 0x5000, 0x1000, 0x3000, true},
		{"nowhere", 0x9000, 0, 1 << 32, 0, 0, false},
		{"huge", ^uint64(0), 0, ^uint64(0), 0, 0, false},
	}
	for _, tt := range tests {
		low, lowOK := r.lowest(tt.size, memory.PageSize, tt.low, tt.below)
		high, highOK := r.highest(tt.size, tt.low, tt.below)
		if low != tt.lowest || high != tt.highest || lowOK != tt.ok || highOK != tt.ok {
			t.Errorf("%s: lowest %#x %v, highest %#x %v", tt.name, low, lowOK, high, highOK)
		}
	}
}
