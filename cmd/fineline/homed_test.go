package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/fineline-vmm/fineline/cmd/internal/process"
	"github.com/fineline-vmm/fineline/cmd/internal/relay"
	"github.com/fineline-vmm/fineline/memory"
	"github.com/fineline-vmm/fineline/migration"
	"github.com/fineline-vmm/fineline/migration/wire"
	"github.com/fineline-vmm/fineline/vmm/api"
)

// slowLink is one on which a page takes a third of a millisecond and a line does not.
var slowLink = relay.Link{BitsPerS: 100e6}

// slowBackground leaves most of the link to what is waited for.
const slowBackground = 1 << 20

// postcopyOver moves a guest over a slow link, memory after it.
func postcopyOver(h *house, from *process.VMM, to string) *migration.Result {
	h.t.Helper()
	way := h.path("relay.sock")
	r, err := relay.Start(way, to, slowLink)
	if err != nil {
		h.t.Fatal(err)
	}
	result, err := from.Migrate(h.ctx, api.MigrationRequest{
		DestinationURL: "unix:" + way, MemoryMode: "Postcopy", TimeoutS: 120, MaxBandwidthBytesPerSecond: slowBackground,
	}, ignoreProgress)
	if err != nil || result.Status != migration.StatusCompleted {
		h.t.Fatalf("%+v, %v\n%s", result, err, from.Stderr())
	}
	if err := r.Close(); err != nil {
		h.t.Error(err)
	}
	return result
}

// TestPostcopyHomed: what a guest that writes all over its memory waits for, by the page and by the line, over one slow link. Each
// of its bytes is right either way.
func TestPostcopyHomed(t *testing.T) {
	hostTierOnly(t)
	if err := memory.CheckDemand(); err != nil {
		t.Skip(err)
	}
	for _, homed := range []bool{false, true} {
		h := newHouse(t)
		source := h.startDirty("source", "", "pages=1024 lines=16 vcpus=2 rate=0 progress=0", "--memory", "64M", "--cpus", "2")
		steps := source.check()
		var args []string
		if homed {
			args = append(args, "--postcopy-homed")
		}
		destination, _ := h.startIncoming("destination", "", args...)
		f := postcopyOver(h, source.VMM, h.path("destination.mig")).Faults
		destination.awaitPhase(api.Running)
		if now := destination.checkRuns(); now < steps {
			t.Errorf("the guest went from %d steps back to %d", steps, now)
		}
		destination.stop()
		t.Logf("homed %t, link %v: pages %d, p50 %.0f us, p99 %.0f us; lines %d (%d bytes), p50 %.0f us, p99 %.0f us, the rest of their pages p50 %.0f us, p99 %.0f us",
			homed, slowLink, f.Count, f.P50US, f.P99US, f.Lines, f.LineBytes, f.LineP50US, f.LineP99US, f.RestP50US, f.RestP99US)
		if !homed {
			if f.Count == 0 || f.Lines != 0 {
				t.Errorf("by the page: %+v", f)
			}
			continue
		}
		if f.Lines < 20 || f.PagesRest == 0 || f.LineBytes > f.Lines*wire.LineFrameBytes {
			t.Errorf("by the line: %+v", f)
		}
	}
}

// TestPostcopyHomedRecovers: the connections are lost while vCPUs wait for lines. The guest is paused there, and goes on over new ones.
func TestPostcopyHomedRecovers(t *testing.T) {
	hostTierOnly(t)
	if err := memory.CheckDemand(); err != nil {
		t.Skip(err)
	}
	h := newHouse(t)
	source := h.startDirty("source", "", "pages=1024 lines=16 vcpus=2 rate=0 progress=0", "--memory", "64M", "--cpus", "2")
	steps := source.check()
	destination, _ := h.startIncoming("destination", "destination.page#80=cut,destination.page#300=cut", "--postcopy-homed")
	f := postcopyOver(h, source.VMM, h.path("destination.mig")).Faults
	destination.awaitPhase(api.Running)
	if now := destination.checkRuns(); now < steps {
		t.Errorf("the guest went from %d steps back to %d", steps, now)
	}
	destination.stop()
	if lost := strings.Count(destination.Stderr(), "the connection to its memory is lost"); lost != 2 {
		t.Errorf("%d connections were lost\n%s", lost, destination.Stderr())
	}
	t.Logf("%+v", f)
	if f.Lines == 0 {
		t.Error("no line was waited for")
	}
}

// TestPostcopyHomedLines is TestPostcopyHomed for random programs of two vCPUs, with locked and vector instructions.
func TestPostcopyHomedLines(t *testing.T) {
	hostTierOnly(t)
	if err := memory.CheckDemand(); err != nil {
		t.Skip(err)
	}
	h := newHouse(t)
	start := func(name string, args ...string) (*process.VMM, string) {
		serial := filepath.Join(h.dir, name+".txt")
		args = append(args, "--serial", "file:"+serial, "--journal", h.path(name+".journal"))
		v, err := process.Start(h.ctx, program(t), h.dir, name, []string{"TMPDIR=" + h.dir}, args...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = v.Kill() })
		return v, serial
	}
	round := regexp.MustCompile(`lines round=\d+ stored=\d+ mismatches=(\d+)\n`)
	rounds := func(file string) int {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all := round.FindAllStringSubmatch(string(text), -1)
		for _, r := range all {
			if r[1] != "0" {
				t.Fatalf("%s", text)
			}
		}
		return len(all)
	}
	source, said := start("source", "--kernel", "builtin:lines", "--memory", "64M", "--cpus", "2",
		"--cmdline", "vcpus=2 pages=1024 rounds=1000000 steps=3000 kinds=scalar,string,sse,atomic,load,avx")
	h.eventually("the guest runs", func() bool { return rounds(said) > 2 })
	destination, said := start("destination", "--incoming", "unix:"+h.path("destination.mig"), "--postcopy-homed")
	f := postcopyOver(h, source, h.path("destination.mig")).Faults
	h.eventually("the guest runs there", func() bool { return rounds(said) > 2 })
	if err := destination.API.Stop(h.ctx); err != nil {
		t.Fatal(err)
	}
	if err := ended(h.ctx, destination); err != nil {
		t.Error(err)
	}
	t.Logf("%+v", f)
	if f.Lines == 0 {
		t.Error("no line was waited for")
	}
}
