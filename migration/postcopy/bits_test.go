package postcopy

import (
	"math/rand/v2"
	"testing"

	"github.com/fineline-vmm/fineline/memory"
)

// TestPageBits compares with a set, for regions that begin at any page.
func TestPageBits(t *testing.T) {
	for seed := range uint64(50) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		low := 1 + rnd.Uint64N(200)
		guest, err := memory.New([]memory.Region{
			{Base: memory.GPA(rnd.Uint64N(100) * memory.PageSize), SizeBytes: low * memory.PageSize},
			{Base: memory.GPA((400 + rnd.Uint64N(100)) * memory.PageSize), SizeBytes: low * memory.PageSize},
		}, memory.Options{})
		if err != nil {
			t.Fatal(err)
		}
		set := guest.NewPageSet()
		for _, gpa := range allPages(guest) {
			if rnd.IntN(3) == 0 {
				set.Add(gpa)
			}
		}
		b := pageBitsOf(set)
		want := uint64(0)
		next, more := b.next(0)
		for page := range uint64(1000) {
			has := set.Has(pageGPA(page))
			if b.has(page) != has {
				t.Fatalf("seed %d: page %d: %v", seed, page, !has)
			}
			if has {
				if !more || next != page {
					t.Fatalf("seed %d: next is %d, %v, want %d", seed, next, more, page)
				}
				next, more = b.next(page + 1)
				want++
			}
		}
		for page := range uint64(1000) {
			if b.take(page) {
				want--
			}
		}
		if _, any := b.next(0); want != 0 || any || b.take(1<<50) || b.has(1<<50) {
			t.Errorf("seed %d: %d pages left", seed, want)
		}
		guest.Close()
	}
}
