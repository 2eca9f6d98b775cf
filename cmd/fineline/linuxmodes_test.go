package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/fineline-vmm/fineline/vmm/api"
	"github.com/fineline-vmm/fineline/vmm/vmmtest"
)

// migrationsEach is how often a Linux guest moves in each mode: a tenth of FINELINE_SOAK, which says so of tiny
// guests (docs/testing.md).
func migrationsEach(t *testing.T) int {
	t.Helper()
	text := os.Getenv("FINELINE_SOAK")
	if text == "" {
		return 2
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("FINELINE_SOAK=%q is no number of migrations", text)
	}
	return min(max(1, n/10), maxLinuxHops/len(linuxModes))
}

// linuxModes are the modes as a Linux guest takes them.
var linuxModes = []api.MigrationRequest{
	{MemoryMode: "Precopy", DowntimeMS: 1000},
	{MemoryMode: "Postcopy"},
	{MemoryMode: "Hybrid", DowntimeMS: 1},
}

// linuxCell is what pages are sent as, and compared with.
type linuxCell struct{ granularity, baseline string }

// linuxCells are all, in an order that a seed draws for each mode.
func linuxCells(t *testing.T) (cells [][]linuxCell) {
	t.Helper()
	seed, err := strconv.ParseUint(os.Getenv("FINELINE_SEED"), 10, 64)
	if err != nil {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for range linuxModes {
		var all []linuxCell
		for _, granularity := range []string{"line", "page"} {
			for _, baseline := range []string{"auto", "twin", "hash", "none"} {
				all = append(all, linuxCell{granularity, baseline})
			}
		}
		random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		cells = append(cells, all)
	}
	return cells
}

// span holds a value that is known to lie in it.
type span struct{ from, to float64 }

// clockAhead is how far the guest's wall clock is ahead of this host's, in seconds: the guest read it between
// the question and the answer. A slow host makes the span longer and not wrong.
func (m *memcheck) clockAhead() span {
	m.t.Helper()
	m.say("every 0s")
	m.say("are you quiet")
	for m.next() != fmt.Sprintf("seq=%d unknown command are you quiet", m.last.seq) {
	}
	now := func() float64 { return float64(time.Now().UnixNano()) / 1e9 }
	asked := now()
	m.say("status")
	s := m.status()
	answered := now()
	m.say("every 1s")
	return span{s.realtime - answered, s.realtime - asked}
}

// clockAllowance is how far a guest's wall clock may come from the host's in a test, in seconds, beside all
// downtimes: clocks are printed in milliseconds, and for the frequencies of two clocks 500 parts in a million for
// each of 100 s, as NTP allows.
const clockAllowance = 0.05

// checkClock fails if the guest's clock has left the host's by more than so many seconds.
func (m *memcheck) checkClock(begin span, downtime float64) {
	m.t.Helper()
	now := m.clockAhead()
	if now.from > begin.to+clockAllowance || now.to < begin.from-clockAllowance-downtime {
		m.t.Errorf("the guest's clock was %+v s ahead and is %+v s ahead after %v s of downtime", begin, now, downtime)
	}
	m.t.Logf("the guest's clock was %+v s ahead of the host's and is %+v", begin, now)
}

// TestLinuxMigratesInEveryMode moves stock Linux that checks its memory and its clocks and compresses data.
func TestLinuxMigratesInEveryMode(t *testing.T) {
	vmmtest.NeedLinux(t)
	each, cells := migrationsEach(t), linuxCells(t)
	ctx, cancel := context.WithTimeout(t.Context(), linuxHangGuard*time.Duration(each+2)/3)
	defer cancel()
	guest := bootTraveller(ctx, t, "192M", "fineline.job=compress fineline.mib=4 fineline.rest=100ms")
	guest.jobDone()
	clock, downtime := guest.clockAhead(), 0.0
	for hop := range each * len(linuxModes) {
		mode, turn := hop%len(linuxModes), hop/len(linuxModes)
		r, cell := linuxModes[mode], cells[mode][turn%len(cells[mode])]
		r.Granularity, r.Baseline = cell.granularity, cell.baseline
		result := guest.hop(r)
		guest.jobDone()
		downtime += result.DowntimeMS / 1e3
		t.Logf("hop %d, %s by the %s against %s: %.0f ms, %.0f ms of downtime, %d rounds, post-copy %t, %+v", hop+1, r.MemoryMode,
			r.Granularity, r.Baseline, result.TotalMS, result.DowntimeMS, len(result.Rounds), result.SwitchedToPostcopy, result.Faults)
	}
	guest.checkClock(clock, downtime)
	guest.powerOff()
}
