package wire

import (
	"bytes"
	"encoding/hex"
	"errors"
	"iter"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/fineline-vmm/fineline/memory"
)

// addresses goes through page numbers as PageSet.Range does.
func addresses(pages ...uint64) iter.Seq[memory.GPA] {
	return func(yield func(memory.GPA) bool) {
		for _, page := range pages {
			if !yield(memory.GPA(page * memory.PageSize)) {
				return
			}
		}
	}
}

// absentPages lists the pages of an ABSENT payload.
func absentPages(payload []byte, limit uint64) (pages []uint64, err error) {
	err = DecodeAbsent(payload, limit, func(first, count uint64) error {
		for page := first; page < first+count; page++ {
			pages = append(pages, page)
		}
		return nil
	})
	return pages, err
}

func TestAbsentFormat(t *testing.T) {
	for want, pages := range map[string][]uint64{
		"":                   nil,
		"0001":               {0},
		"0101":               {1},
		"0003":               {0, 1, 2},
		"0001 0102 ac0201":   {0, 2, 3, 304},
		"ffffffffffffff0701": {1<<52 - 1},
	} {
		got := AppendAbsent([]byte{9}, addresses(pages...))
		if bin, err := hex.DecodeString(string(bytes.ReplaceAll([]byte(want), []byte(" "), nil))); err != nil || !bytes.Equal(got[1:], bin) {
			t.Errorf("%v becomes %x, want %s", pages, got[1:], want)
		}
		if back, err := absentPages(got[1:], maxPages); err != nil || !slices.Equal(back, pages) {
			t.Errorf("%v comes back as %v, %v", pages, back, err)
		}
	}
}

func TestAbsentRoundTrip(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	for range 200 {
		var pages []uint64
		few := 1 + rng.Uint64N(300)
		for page := rng.Uint64N(few); len(pages) < 1000; page += 1 + rng.Uint64()%few*(rng.Uint64()&1) {
			pages = append(pages, page)
		}
		limit := pages[len(pages)-1] + 1
		payload := AppendAbsent(nil, addresses(pages...))
		if got, err := absentPages(payload, limit); err != nil || !slices.Equal(got, pages) {
			t.Fatalf("%v comes back as %v, %v", pages, got, err)
		}
		if _, err := absentPages(payload, limit-1); !errors.Is(err, ErrProtocol) {
			t.Fatalf("a page beyond the limit: %v", err)
		}
	}
}

// TestAbsentOfPageSet: the method of a guest's set fits.
func TestAbsentOfPageSet(t *testing.T) {
	mem, err := memory.New([]memory.Region{{SizeBytes: 1 << 20}}, memory.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	set := mem.NewPageSet()
	set.AddRange(3*memory.PageSize, 70*memory.PageSize)
	if got := AppendAbsent(nil, set.Range); !bytes.Equal(got, []byte{3, 70}) {
		t.Errorf("%v", got)
	}
}

func TestAbsentPanics(t *testing.T) {
	for _, pages := range [][]uint64{{1, 1}, {2, 1}, {0, 0}, {5, 6, 3}} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%v: no panic", pages)
				}
			}()
			AppendAbsent(nil, addresses(pages...))
		}()
	}
}

func TestBadAbsent(t *testing.T) {
	const limit = 1000
	full := []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}
	for name, payload := range map[string][]byte{
		"no length":       {1},
		"gap cut short":   {0x80},
		"length cut":      {1, 0x80},
		"empty run":       {1, 0},
		"runs touch":      {1, 1, 0, 1},
		"beyond":          {1, 0xe8, 7},
		"second beyond":   {1, 1, 0xe7, 7, 1},
		"gap overflows":   append(append([]byte{1, 1}, full...), 1),
		"long overflows":  append([]byte{1, 1, 1}, full...),
		"gap of 80 bits":  append(append([]byte{0xff}, full...), 1),
		"long of 80 bits": append([]byte{1, 0xff}, full...),
	} {
		if got, err := absentPages(payload, limit); !errors.Is(err, ErrProtocol) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	broken := errors.New("broken")
	calls := 0
	if err := DecodeAbsent([]byte{1, 1, 1, 1}, limit, func(_, _ uint64) error { calls++; return broken }); !errors.Is(err, broken) || calls != 1 {
		t.Errorf("%v after %d calls", err, calls)
	}
}

// FuzzAbsent reads arbitrary sets: what passes is within the limit and has one encoding.
func FuzzAbsent(f *testing.F) {
	f.Add([]byte{0, 1, 1, 2, 0xac, 2, 1}, uint64(1000))
	f.Add([]byte{1, 0xe7, 7}, uint64(1000))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 7, 1}, uint64(1<<52))
	f.Fuzz(func(t *testing.T, payload []byte, limit uint64) {
		limit %= 1 << 16
		pages, err := absentPages(payload, limit)
		if uint64(len(pages)) > limit || len(pages) > 0 && pages[len(pages)-1] >= limit {
			t.Fatalf("%d pages of %d", len(pages), limit)
		}
		if err != nil {
			return
		}
		again, err := absentPages(AppendAbsent(nil, addresses(pages...)), limit)
		if err != nil || !slices.Equal(again, pages) {
			t.Fatalf("%v comes back as %v, %v", pages, again, err)
		}
	})
}

func TestRequest(t *testing.T) {
	want := []uint64{7, 1<<52 - 1, 0}
	payload := AppendRequest(nil, want)
	if !bytes.Equal(payload, []byte{7, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0, 0, 0, 0, 0, 0, 0, 0}) {
		t.Errorf("%x", payload)
	}
	var room [MaxRequestPages]uint64
	if got, err := DecodeRequest(room[:0], payload); err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	if got, err := DecodeRequest(nil, make([]byte, 8*MaxRequestPages)); err != nil || len(got) != MaxRequestPages {
		t.Errorf("%d pages, %v", len(got), err)
	}
	for _, bad := range [][]byte{nil, payload[:7], payload[:9], make([]byte, 8*(MaxRequestPages+1)), {0, 0, 0, 0, 0, 0, 0x10, 0}} {
		if got, err := DecodeRequest(nil, bad); !errors.Is(err, ErrProtocol) {
			t.Errorf("%x: %v, %v", bad, got, err)
		}
	}
}
