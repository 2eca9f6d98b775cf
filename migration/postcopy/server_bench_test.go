package postcopy

import (
	"testing"

	"github.com/fineline-vmm/fineline/memory"
)

// BenchmarkNewServer is part of the time for which the guest stands still: 8 GiB above and below the hole, all
// to be delivered.
func BenchmarkNewServer(b *testing.B) {
	guest, err := memory.New([]memory.Region{{SizeBytes: 3 << 30}, {Base: 4 << 30, SizeBytes: 5 << 30}}, memory.Options{})
	if err != nil {
		b.Skip(err)
	}
	defer guest.Close()
	set := guest.NewPageSet()
	for _, r := range guest.Regions() {
		set.AddRange(r.Base, r.SizeBytes)
	}
	for b.Loop() {
		NewServer(guest, set, ServerOptions{})
	}
}
