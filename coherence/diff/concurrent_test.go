package diff

import (
	"bytes"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// TestUpdateWhileWritten is design law 2: while somebody writes the page, lines that are
// gathered from the twin by each mask keep a replica equal to the twin, and when the writer has
// stopped, to the page.
func TestUpdateWhileWritten(t *testing.T) {
	r := random(t)
	eachSet(t, func(t *testing.T, k Kernels) {
		for name, update := range map[string]func(page, twin []byte) uint64{
			"Update":      k.Update,
			"UpdateCount": func(page, twin []byte) uint64 { mask, _ := k.UpdateCount(page, twin); return mask },
			"UpdateBatch": func(page, twin []byte) uint64 {
				masks, other := [2]uint64{}, make([]byte, 2*PageBytes)
				k.UpdateBatch([][]byte{page, other[:PageBytes]}, [][]byte{twin, other[PageBytes:]}, masks[:])
				return masks[0]
			},
		} {
			page := guestPage(t)
			stop := scribble(t, page, r.Uint64())
			twin, replica := make([]byte, PageBytes), make([]byte, PageBytes)
			step := func() uint64 {
				mask := update(page, twin)
				lines := make([]byte, PageBytes)
				if _, err := k.Scatter(replica, mask, lines[:k.Gather(lines, twin, mask)]); err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(replica, twin) {
					t.Fatalf("%s: mask %#x does not cover what changed in the twin", name, mask)
				}
				return mask
			}
			untilAllSeen(t, step)
			stop()
			step()
			if !bytes.Equal(replica, page) {
				t.Errorf("%s: the writer has stopped, and the replica is not the page", name)
			}
		}
	})
}

// TestUpdateHashWhileWritten: who copies the sums in each mask has the sums, and in the end the page's.
func TestUpdateHashWhileWritten(t *testing.T) {
	seed := random(t).Uint64()
	eachSet(t, func(t *testing.T, k Kernels) {
		page, key := guestPage(t), KeyFromSeed(seed)
		stop := scribble(t, page, seed)
		var sums, follower, last [PageLines]uint64
		untilAllSeen(t, func() uint64 {
			mask := k.UpdateHash(key, page, &sums)
			for i := range sums {
				if mask>>i&1 != 0 {
					follower[i] = sums[i]
				}
			}
			if follower != sums {
				t.Fatalf("mask %#x does not cover the sums that changed", mask)
			}
			return mask
		})
		stop()
		k.UpdateHash(key, page, &sums)
		if plain.UpdateHash(key, page, &last); sums != last {
			t.Error("the writer has stopped, and the sums are not the page's")
		}
	})
}

// untilAllSeen repeats step some thousand times, and until each line was in a mask.
func untilAllSeen(t *testing.T, step func() uint64) {
	t.Helper()
	seen := uint64(0)
	for n := 0; n < 3000 || seen != ^uint64(0); n++ {
		if n == 10_000_000 {
			t.Fatalf("lines in no mask: %#x", ^seen)
		}
		seen |= step()
	}
}

// TestBounds: a kernel that touched a byte beyond the page would end the process.
func TestBounds(t *testing.T) {
	r := random(t)
	key := KeyFromSeed(r.Uint64())
	eachSet(t, func(t *testing.T, k Kernels) {
		page, twin := fill(r, guestPage(t)), guestPage(t)
		for _, mask := range []uint64{k.Mask(page, twin), k.NonZero(page), k.UpdateHash(key, page, &[PageLines]uint64{}), k.Update(page, twin)} {
			if mask != ^uint64(0) {
				t.Errorf("mask %#x", mask)
			}
		}
		fill(r, page)
		k.UpdateCount(page, twin)
		other, otherTwin := guestPage(t), guestPage(t)
		k.UpdateBatch([][]byte{page, other}, [][]byte{twin, otherTwin}, make([]uint64, 2))
		k.UpdateHashBatch(key, [][]byte{page, other}, []*[PageLines]uint64{{}, {}}, make([]uint64, 2))
		for _, mask := range masks(r) {
			if n := k.Gather(twin, page, mask); n > 0 {
				if _, err := k.Scatter(page, mask, twin[:n]); err != nil {
					t.Error(err)
				}
			}
		}
	})
}

// guestPage returns a page of zeros outside the Go heap, as guest memory is, between two that may
// not be touched. The race detector does not watch it.
func guestPage(t *testing.T) []byte {
	t.Helper()
	all, err := unix.Mmap(-1, 0, 3*PageBytes, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Munmap(all); err != nil {
			t.Error(err)
		}
	})
	page := all[PageBytes:][:PageBytes:PageBytes]
	if err := unix.Mprotect(page, unix.PROT_READ|unix.PROT_WRITE); err != nil {
		t.Fatal(err)
	}
	return page
}

// scribble stores words at random places of page until stop is called, or the test ends.
func scribble(t *testing.T, page []byte, seed uint64) (stop func()) {
	r, words := rand.New(rand.NewPCG(seed, 1)), wordsOf(&page[0])
	var stopped atomic.Bool
	var writer sync.WaitGroup
	stop = func() {
		stopped.Store(true)
		writer.Wait()
	}
	t.Cleanup(stop) // before the page is unmapped
	writer.Go(func() {
		for !stopped.Load() {
			at := r.Uint64()
			atomic.StoreUint64(&words[at%PageLines][at>>8%keyWords], at>>32%3)
		}
	})
	return stop
}
