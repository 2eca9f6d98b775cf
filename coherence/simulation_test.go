package coherence

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

var (
	simSeed  = flag.Uint64("sim.seed", 0, "first seed of the simulation")
	simSeeds = flag.Uint64("sim.seeds", 300, "how many seeds to simulate")
	simSteps = flag.Int("sim.steps", 600, "steps of a simulation")
)

// tape decides everything in a simulation: the first entry the configuration,
// each other one step. A prefix or any part of a tape is a tape, so that a
// failure can be shrunk, and a fuzzer can write one.
type tape [][4]byte

func randomTape(seed uint64, steps int) tape {
	random := rand.New(rand.NewPCG(seed, 0))
	t := make(tape, 1+steps)
	for i := range t {
		for j := range t[i] {
			t[i][j] = byte(random.Uint32())
		}
	}
	return t
}

// simulate plays a tape on a system with a fault, and then lets everything end.
// It returns what went wrong first, and the script of what it did.
func simulate(t tape, f fault) (script string, err error) {
	if len(t) == 0 {
		return "", nil
	}
	s := simulation{in: interpreter{fault: f}}
	err = s.run(t)
	return strings.Join(s.script, "\n"), err
}

type simulation struct {
	in     interpreter
	script []string
	oracle oracle
}

func (s *simulation) run(t tape) error {
	c := t[0]
	policy := []string{"lru", "plru", "random"}[c[3]%3]
	setup := fmt.Sprintf("cache caches=%d sets=%d ways=%d scan=%d policy=%s seed=%d", 2+c[0]%3, 1+c[1]%2, 1+c[2]%2, c[3]/3%3, policy, c[3])
	if err := s.do(setup); err != nil {
		return err
	}
	if c[2]/2%2 == 0 { // a home that lacks some or all lines
		if err := s.do(fmt.Sprintf("expect %d-%d", simFirst+Line(c[1]/2%3), simFirst+simLines-1)); err != nil {
			return err
		}
	}
	for _, step := range t[1:] {
		if err := s.do(s.command(step)); err != nil {
			return err
		}
	}
	return s.end(t[len(t)-1])
}

// simFirst is the first of the lines in play, which lie on two pages.
const simFirst, simLines = Line(61), 6

// command decodes one step. Most deliver, as an access takes several messages.
// Low lines come up more often than high ones, and so are hit.
func (s *simulation) command(step [4]byte) string {
	node, line := Node(int(step[1])%s.caches()), simFirst+Line(min(step[2]%simLines, step[3]%simLines))
	region := 1 + step[1]%2
	switch kind := step[0] % 100; {
	case kind < 10:
		return fmt.Sprintf("load %v %d", node, line)
	case kind < 22:
		return fmt.Sprintf("store %v %d", node, line)
	case kind < 25:
		return fmt.Sprintf("evict %v %d", node, line)
	case kind == 25:
		return fmt.Sprintf("ioread %d", line)
	case kind == 26:
		return fmt.Sprintf("iowrite %d", line)
	case kind == 27:
		return "tick"
	case kind == 28:
		return fmt.Sprintf("region %d %d-%d", region, line, min(simFirst+simLines-1, line+Line(step[3]%4)))
	case kind == 29 && step[3]%4 == 0:
		return fmt.Sprintf("remove %d", region)
	case kind == 29:
		return fmt.Sprintf("start %d", region)
	case kind == 30 && step[3]%2 == 0:
		return fmt.Sprintf("stop %d", region)
	case kind < 33:
		return fmt.Sprintf("harvest %d max=%d", region, step[3]%2)
	case kind == 33:
		return fmt.Sprintf("harvest %d nosnoop", region)
	case kind < 36: // an answer, the rest of a page, something late: home cannot tell
		return fmt.Sprintf("arrive %d-%d", line, min(simFirst+simLines-1, line+Line(step[3]/16%4)))
	case kind == 36 && step[3]%4 == 0:
		return "refetch"
	}
	return s.delivery(step)
}

func (s *simulation) caches() int { return len(s.in.system.caches) }

// delivery chooses one of the messages that may arrive next.
func (s *simulation) delivery(step [4]byte) string {
	type choice struct {
		link string
		k    int
	}
	var choices []choice
	seen := map[string]int{}
	for _, m := range s.in.system.inflight {
		link := linkOf(m)
		if k := seen[link]; k == 0 || m.To == Home || s.in.fault == overtakes {
			choices = append(choices, choice{link, k})
		}
		seen[link]++
	}
	if len(choices) == 0 {
		return "show"
	}
	c := choices[(int(step[1])<<8|int(step[2]))%len(choices)]
	return fmt.Sprintf("deliver %s %d", c.link, c.k)
}

// do runs a command and checks everything.
func (s *simulation) do(command string) error {
	s.in.out.Reset()
	name := strings.Fields(command)[0]
	if name == "show" {
		return nil
	}
	s.script = append(s.script, command)
	err := s.in.do(command)
	if err != nil {
		if name == "deliver" || !errors.Is(err, ErrBusy) && !errors.Is(err, ErrRegion) {
			return err
		}
		return nil // asked too early, or of no such region: refused without effect
	}
	if name == "cache" {
		s.oracle = newOracle(s.in.system)
		return nil
	}
	return s.oracle.observe(command)
}

// end lets everything arrive and checks that nothing is stuck or lost.
func (s *simulation) end(random [4]byte) error {
	if err := s.quiet(random); err != nil {
		return err
	}
	// What is waited for was asked for, so at last it comes.
	if err := s.oracle.waitsAreFetched(); err != nil {
		return err
	}
	if err := s.do(fmt.Sprintf("arrive %d-%d", simFirst, simFirst+simLines-1)); err != nil {
		return err
	}
	if err := s.quiet(random); err != nil {
		return err
	}
	for _, command := range []string{"harvest 1", "harvest 2"} {
		if err := s.do(command); err != nil {
			return err
		}
	}
	if err := s.quiet(random); err != nil {
		return err
	}
	return s.oracle.atRest()
}

func (s *simulation) quiet(random [4]byte) error {
	for n := 0; len(s.in.system.inflight) > 0; n++ {
		if n > 100_000 {
			return errors.New("messages without end")
		}
		if err := s.do(s.delivery([4]byte{0, random[1], random[2] + byte(n*n)})); err != nil {
			return err
		}
	}
	return nil
}

// shrink takes steps out of a failing tape as long as it fails.
func shrink(t tape, f fault) tape {
	for size := len(t) / 2; size > 0; size /= 2 {
		for at := len(t) - size; at >= 1; at -= size {
			shorter := slices.Concat(t[:at], t[at+size:])
			if _, err := simulate(shorter, f); err != nil {
				t = shorter
				at = min(at, len(t)-size+1)
			}
		}
	}
	return t
}

func report(t tape, f fault) string {
	t = shrink(t, f)
	script, err := simulate(t, f)
	return fmt.Sprintf("%v, after\n%s", err, script)
}

// TestSimulation plays random tapes. One seed again: -sim.seed=N -sim.seeds=1.
func TestSimulation(t *testing.T) {
	t.Logf("seeds %d to %d", *simSeed, *simSeed+*simSeeds-1)
	for seed := *simSeed; seed < *simSeed+*simSeeds; seed++ {
		tape := randomTape(seed, *simSteps)
		if _, err := simulate(tape, sound); err != nil {
			t.Fatalf("seed %d: %s", seed, report(tape, sound))
		}
	}
}

// TestSimulationReaches checks that the rare cases, for which there is a
// simulation, come up in it.
func TestSimulationReaches(t *testing.T) {
	var stale, scans, silent, upgrades, lostUpgrades, aborted, stopped, more, fetches, late, shared, done int
	for seed := range uint64(100) {
		tape := randomTape(seed, 600)
		s := simulation{}
		if err := s.run(tape); err != nil {
			t.Fatal(err)
		}
		stats := s.in.system.Stats()
		stale += int(stats.StalePuts)
		scans += int(stats.Scans)
		silent += int(stats.SilentUpgrades)
		upgrades += int(stats.Upgrades)
		lostUpgrades += int(stats.LostUpgrades)
		aborted += s.oracle.counts[Aborted]
		stopped += s.oracle.counts[StopDone]
		more += s.oracle.more
		fetches += int(stats.Fetches)
		late += int(stats.LateLines)
		shared += s.oracle.sharedFetches
		done += s.oracle.counts[PageDone]
	}
	t.Logf("stale puts %d, scans %d, silent upgrades %d, upgrades %d (lost %d), aborted %d, stopped %d, harvests with a rest %d",
		stale, scans, silent, upgrades, lostUpgrades, aborted, stopped, more)
	t.Logf("fetches %d (%d shared), late lines %d, pages done %d", fetches, shared, late, done)
	if min(stale, scans, silent, upgrades, lostUpgrades, aborted, stopped, more, fetches, late, shared, done) == 0 {
		t.Error("a case does not come up")
	}
}

// TestSimulationFindsFaults is the canary: each broken variant of the protocol
// must be found.
func TestSimulationFindsFaults(t *testing.T) {
	const seeds = 100
	names := [faults]string{
		forgetsSnoop: "forgets a snoop", answersEarly: "answers early", staysWritable: "stays writable",
		trustsStalePut: "trusts a stale put", unmarkedEviction: "does not mark evictions",
		unmarkedIO: "does not mark IO", overtakes: "home's links overtake",
		lateWins: "late lines win", grantsAbsent: "grants absent lines", forgetsWaiter: "forgets who waits",
	}
	for f := sound + 1; f < faults; f++ {
		t.Run(names[f], func(t *testing.T) {
			for seed := range uint64(seeds) {
				tape := randomTape(seed, *simSteps)
				if _, err := simulate(tape, f); err != nil {
					t.Logf("seed %d: %s", seed, report(tape, f))
					return
				}
			}
			t.Errorf("not found with %d seeds", seeds)
		})
	}
}
