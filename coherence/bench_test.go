package coherence

import "testing"

// The cache of the benchmarks: 1 MiB, 16 ways.
var benchConfig = Config{Caches: 4, Sets: 1024, Ways: 16}

func BenchmarkHit(b *testing.B) {
	d := newDevice(b, benchConfig)
	check := must[[]Effect](b)
	line := Line(0)
	for b.Loop() {
		check(d.Load(0, line&1023))
		line++
	}
}

// BenchmarkMiss stores to ever new lines, so that each evicts a written one.
func BenchmarkMiss(b *testing.B) {
	for _, c := range []struct {
		name string
		rule Replacement
	}{{"lru", LRU}, {"plru", TreePLRU}, {"random", Random}} {
		b.Run(c.name, func(b *testing.B) {
			config := benchConfig
			config.Replacement = c.rule
			d := newDevice(b, config)
			if err := d.AddRegion(1, Range{0, 1 << 20}); err != nil {
				b.Fatal(err)
			}
			check := must[[]Effect](b)
			line := Line(0)
			for b.Loop() {
				check(d.Store(0, line&(1<<20-1)))
				line++
			}
		})
	}
}

// BenchmarkPingPong stores to one line from two caches in turn.
func BenchmarkPingPong(b *testing.B) {
	d := newDevice(b, benchConfig)
	check := must[[]Effect](b)
	n := Node(0)
	for b.Loop() {
		check(d.Store(n, 5))
		n ^= 1
	}
}

// BenchmarkHarvest snoops and collects 4096 written lines, a page each of 64
// lines apart; the stores between are not timed.
func BenchmarkHarvest(b *testing.B) {
	d := newDevice(b, benchConfig)
	if err := d.AddRegion(1, Range{0, 1 << 20}); err != nil {
		b.Fatal(err)
	}
	check := must[[]Effect](b)
	for b.Loop() {
		b.StopTimer()
		for i := range Line(4096) {
			check(d.Store(0, i*PageLines+i/PageLines))
		}
		b.StartTimer()
		if _, _, err := d.Harvest(1, true, 0); err != nil {
			b.Fatal(err)
		}
	}
}

// TestAccessesDoNotAllocate: an access is on a vCPU's path.
func TestAccessesDoNotAllocate(t *testing.T) {
	d := newDevice(t, Config{Caches: 2, Sets: 64, Ways: 4})
	check := must[[]Effect](t)
	access := func() {
		for line := range Line(1024) {
			check(d.Store(Node(line%2), line))
			check(d.Load(Node(line%3%2), line/2))
		}
	}
	access()
	if n := testing.AllocsPerRun(10, access); n > 10 {
		t.Errorf("%v allocations in 2048 accesses", n)
	}
}
