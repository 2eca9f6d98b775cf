package predict_test

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/fineline-vmm/fineline/coherence/predict"
)

func TestNewRefuses(t *testing.T) {
	ram := []predict.Range{{First: 0, Pages: 1}}
	if _, err := predict.New("oracle", predict.Options{RAM: ram, Wanted: everything}); !errors.Is(err, predict.ErrUnknown) {
		t.Errorf("an unknown name: %v", err)
	}
	for name, o := range map[string]predict.Options{
		"no RAM":      {Wanted: everything},
		"no Wanted":   {RAM: ram},
		"empty range": {RAM: []predict.Range{{First: 4}}, Wanted: everything},
		"too long":    {RAM: []predict.Range{{First: 0, Pages: 1<<40 + 1}}, Wanted: everything},
		"wraps":       {RAM: []predict.Range{{First: ^uint64(0), Pages: 2}}, Wanted: everything},
	} {
		if _, err := predict.New("none", o); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// hostile drives a predictor with what a guest that wants harm could do, and checks what the interface
// promises of every answer.
type hostile struct {
	t       testing.TB
	name    string
	p       predict.Predictor
	present map[uint64]bool
	log     []uint64 // all answers
}

// RAM as it lies around a hole, up to the last page that can be.
var hostileRAM = []predict.Range{{First: 0, Pages: 1 << 12}, {First: 1 << 14, Pages: 1 << 10}, {First: 1<<40 - 256, Pages: 256}}

func newHostile(t testing.TB, name string) *hostile {
	h := &hostile{t: t, name: name, present: map[uint64]bool{}}
	p, err := predict.New(name, predict.Options{RAM: hostileRAM, Wanted: h.wanted})
	if err != nil {
		t.Fatal(err)
	}
	h.p = p
	return h
}

func (h *hostile) wanted(page uint64) bool {
	if !inRAM(page) {
		h.t.Errorf("%s: asks whether page %#x is wanted, which is not RAM", h.name, page)
	}
	return !h.present[page]
}

func inRAM(page uint64) bool {
	return slices.ContainsFunc(hostileRAM, func(r predict.Range) bool { return page >= r.First && page-r.First < r.Pages })
}

// do reads one step from the words: a call and its arguments.
func (h *hostile) do(call, page, extra uint64) {
	n := int(int8(extra))
	prefix := []uint64{1, 1}
	switch call % 8 {
	case 0, 1, 2, 3:
		h.check(page, n, h.p.Miss(page, prefix, n))
	case 4, 5:
		h.check(page, n, h.p.Hit(page, prefix, n))
	case 6:
		random := rand.New(rand.NewPCG(extra, page))
		h.p.Arrived(page, tablePage(random, 1<<12))
		h.p.Arrived(page, make([]byte, extra%8192))
	default:
		h.present[page%(1<<12)] = extra%2 == 0
	}
}

func (h *hostile) check(page uint64, n int, got []uint64) {
	if !slices.Equal(got[:2], []uint64{1, 1}) {
		h.t.Fatalf("%s: page %#x: dst has changed: %v", h.name, page, got)
	}
	got = got[2:]
	h.log = append(h.log, got...)
	if len(got) > max(0, min(n, predict.MaxPages)) {
		h.t.Fatalf("%s: page %#x: %d pages, %d were asked for", h.name, page, len(got), n)
	}
	seen := map[uint64]bool{page: true}
	for _, g := range got {
		if seen[g] || !inRAM(g) || h.present[g] {
			h.t.Fatalf("%s: page %#x: %#x is there twice, not RAM or not wanted: %#x", h.name, page, g, got)
		}
		seen[g] = true
	}
}

// target turns arbitrary words into pages that are near each other often enough to be followed.
func target(random *rand.Rand, last uint64) uint64 {
	switch random.IntN(8) {
	case 0:
		return random.Uint64()
	case 1:
		return 1<<40 - 1 - random.Uint64N(300)
	case 2:
		return random.Uint64N(1 << 15)
	case 3:
		return last
	default:
		return last + uint64(random.IntN(9)-3)
	}
}

func TestHostileGuest(t *testing.T) {
	for _, name := range predict.Names() {
		var logs [2][]uint64
		for run := range logs {
			random := rand.New(rand.NewPCG(7, 0))
			h := newHostile(t, name)
			last := uint64(0)
			for range 30_000 {
				last = target(random, last)
				h.do(random.Uint64(), last, random.Uint64())
			}
			logs[run] = h.log
		}
		if !slices.Equal(logs[0], logs[1]) {
			t.Errorf("%s: the same calls, other answers", name)
		}
		if len(logs[0]) == 0 && name != "none" {
			t.Errorf("%s: has never said anything", name)
		}
	}
}

func FuzzPredictors(f *testing.F) {
	random := rand.New(rand.NewPCG(1, 0))
	for i := range predict.Names() {
		seed := []byte{byte(i)}
		for range 64 {
			seed = binary.LittleEndian.AppendUint16(seed, uint16(random.Uint32()))
			seed = binary.LittleEndian.AppendUint64(seed, random.Uint64N(1<<13))
		}
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) == 0 {
			return
		}
		names := predict.Names()
		h := newHostile(t, names[int(data[0])%len(names)])
		for rest := data; len(rest) >= 10; rest = rest[10:] {
			h.do(uint64(rest[1]), binary.LittleEndian.Uint64(rest[2:]), uint64(rest[0]))
		}
	})
}

// TestBoundedMemory: what a predictor has it has from the start, so no guest can make it grow.
func TestBoundedMemory(t *testing.T) {
	for _, name := range predict.Names() {
		const ram = 1 << 16
		p := newPredictor(t, name, ram, everything)
		random := rand.New(rand.NewPCG(2, 0))
		content := tablePage(random, ram)
		dst := make([]uint64, 0, predict.MaxPages)
		last := uint64(0)
		allocs := testing.AllocsPerRun(5000, func() {
			last = target(random, last)
			p.Miss(last, dst, predict.MaxPages)
			p.Hit(last+1, dst, predict.MaxPages)
			p.Arrived(last, content)
		})
		if allocs != 0 {
			t.Errorf("%s: %v allocations a call", name, allocs)
		}
	}
}
