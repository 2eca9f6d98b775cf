package matrix

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/fineline-vmm/fineline/coherence/predict"
	"github.com/fineline-vmm/fineline/migration"
	"github.com/fineline-vmm/fineline/migration/wire"
	"github.com/fineline-vmm/fineline/vmm"
	"github.com/fineline-vmm/fineline/vmm/vmmtest"
)

// The environment: soakEnv is how many journeys each pattern makes (docs/testing.md), seedEnv repeats those of a seed.
const (
	soakEnv = "FINELINE_SOAK"
	seedEnv = "FINELINE_SEED"
)

// pattern is how a guest writes.
type pattern struct {
	name string
	cpus int
	// cmdline may draw from rng.
	cmdline func(rng *rand.Rand) string
}

func fixed(cmdline string) func(*rand.Rand) string { return func(*rand.Rand) string { return cmdline } }

var patterns = []pattern{
	{"one line a page", 1, fixed("pattern=random lines=1")},
	{"one line a page in clusters", 2, fixed("pattern=cluster lines=1")},
	{"random bytes", 1, func(rng *rand.Rand) string {
		return fmt.Sprintf("pattern=random lines=%d bytes=%d", 1+rng.IntN(64), 8+rng.IntN(57))
	}},
	{"zipf", 2, fixed("pattern=zipf lines=8")},
	{"stride", 1, func(rng *rand.Rand) string { return fmt.Sprintf("pattern=stride lines=%d", 1+rng.IntN(16)) }},
	{"every byte", 1, fixed("pattern=seq lines=64")},
	{"4 vCPUs at once", 4, func(rng *rand.Rand) string { return fmt.Sprintf("pattern=random lines=%d", 1+rng.IntN(8)) }},
}

// baseline is what pages are compared with; a tight budget holds that of a few pages only.
type baseline struct {
	kind        migration.Baseline
	budgetBytes uint64
}

var baselines = []baseline{
	{migration.BaselineAuto, 0}, {migration.BaselineTwin, 0}, {migration.BaselineHash, 0}, {migration.BaselineNone, 0},
	{migration.BaselineAuto, 200 << 10},
}

var (
	modes         = []wire.Mode{wire.ModePrecopy, wire.ModePostcopy, wire.ModeHybrid}
	granularities = []migration.Granularity{migration.GranularityLine, migration.GranularityPage}
)

// cell is one place of the matrix.
type cell struct {
	mode wire.Mode
	by   migration.Granularity
	base baseline
}

func cells() []cell {
	var all []cell
	for _, mode := range modes {
		for _, by := range granularities {
			for _, base := range baselines {
				all = append(all, cell{mode, by, base})
			}
		}
	}
	return all
}

// draw chooses everything that the cell leaves open.
func (c cell) draw(rng *rand.Rand) trip {
	names := append(predict.Names(), "")
	p := trip{tcp: rng.IntN(2) == 0, predictor: names[rng.IntN(len(names))], hold: rng.IntN(4) == 0}
	p.opts = migration.SendOptions{
		Mode: c.mode, Granularity: c.by, Baseline: c.base.kind, BaselineBudgetBytes: c.base.budgetBytes,
		Streams: 1 + rng.IntN(4),
	}
	// Some rounds with the guest running in most cases; then it converges, or is stopped though it does not.
	p.opts.Rule = migration.Rule{
		MaxDowntime: []time.Duration{time.Microsecond, time.Second}[rng.IntN(2)],
		MaxRounds:   1 + rng.IntN(8), StallRounds: 1 + rng.IntN(5),
	}
	if rng.IntN(4) == 0 { // longer rounds
		p.opts.MaxBandwidthBytesPerS = 64 << 20
	}
	return p
}

// tally counts migrations. For several goroutines.
type tally struct {
	mu                           sync.Mutex
	trips, failed                int
	switched, rounds, faultPages uint64
}

func (c *tally) add(r *migration.Result, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.trips++
	if err != nil {
		c.failed++
	}
	if r == nil {
		return
	}
	c.rounds += uint64(len(r.Rounds))
	c.faultPages += r.Faults.Count
	if r.SwitchedToPostcopy {
		c.switched++
	}
}

// journeys is how often each pattern goes through the whole matrix, and the seed of all that is drawn.
func journeys(t *testing.T) (count int, seed uint64) {
	t.Helper()
	count, seed = 1, rand.Uint64()
	for name, set := range map[string]func(uint64){
		soakEnv: func(n uint64) { count = int(n) },
		seedEnv: func(n uint64) { seed = n },
	} {
		if text := os.Getenv(name); text != "" {
			n, err := strconv.ParseUint(text, 0, 64)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			set(n)
		}
	}
	return count, seed
}

// TestMatrix: every pattern of writing, every mode, granularity and baseline.
func TestMatrix(t *testing.T) {
	vmmtest.NeedKVM(t)
	count, seed := journeys(t)
	t.Logf("seed %d", seed)
	var total tally
	for n := range uint64(count) {
		for i, p := range patterns {
			t.Run(fmt.Sprintf("%s, journey %d", p.name, n), func(t *testing.T) {
				p.journey(t, rand.New(rand.NewPCG(seed+n, uint64(i))), &total)
			})
		}
	}
	t.Logf("%d migrations, %d failed, %d of them post-copies; %d rounds, %d faults at the destination",
		total.trips, total.failed, total.switched, total.rounds, total.faultPages)
}

// journey takes a new guest through all cells.
func (p pattern) journey(t *testing.T, rng *rand.Rand, total *tally) {
	cmdline := fmt.Sprintf("%s pages=%d vcpus=%d seed=%d rate=%d progress=0", p.cmdline(rng),
		64<<rng.IntN(4), p.cpus, rng.Uint32(), []int{0, 50000, 500000}[rng.IntN(3)])
	ring := rng.IntN(2) == 0
	all := cells()
	rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	if slow() {
		all = all[:3]
	}
	g := boot(t, vmm.Config{CPUs: p.cpus, DirtyRing: ring}, cmdline)
	for hop, c := range all {
		trip := c.draw(rng)
		paused := rng.IntN(8) == 0
		if paused {
			g.pause()
		} else {
			g.goForward(rng.Uint64N(2000))
		}
		r, err := g.migrate(trip)
		if paused && err == nil {
			g.resume()
		}
		if err == nil {
			err = g.arrived()
		}
		total.add(r, err)
		if err != nil {
			t.Fatalf("hop %d: %v: %v\nguest: %s, ring %t, paused %t", hop, trip, err, cmdline, ring, paused)
		}
	}
	if err := g.ask(); err != nil {
		t.Error(err)
	}
}

// arrived judges a running guest.
func (g *guest) arrived() error {
	if err := g.m.Pause(); err != nil {
		return err
	}
	if err := g.judge(); err != nil {
		return err
	}
	return g.m.Resume()
}
