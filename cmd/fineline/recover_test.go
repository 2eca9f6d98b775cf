package main

import (
	"bytes"
	"context"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fineline-vmm/fineline/cmd/internal/relay"
	"github.com/fineline-vmm/fineline/migration"
	"github.com/fineline-vmm/fineline/migration/inject"
	"github.com/fineline-vmm/fineline/migration/journal"
	"github.com/fineline-vmm/fineline/vmm/api"
	"github.com/fineline-vmm/fineline/vmm/vmmtest"
)

// slowPostcopy is a guest that has left ahead of its memory, over a slow link that a test can cut.
type slowPostcopy struct {
	*house
	src, dst *machine
	direct   string // the destination's own address
	link     *relay.Relay
	before   uint64          // the guest's steps before it left
	told     <-chan struct{} // closed when `migrate` has its result
	result   *migration.Result
	err      error
}

func startSlowPostcopy(t *testing.T, keepSource bool) *slowPostcopy {
	h := newHouse(t)
	p := &slowPostcopy{house: h, src: h.startDirty("src", "", "pages=8192 lines=4 rate=200 verify=1 progress=0", "--memory", "96M")}
	p.dst, p.direct = h.startIncoming("dst", "")
	var err error
	if p.link, err = relay.Start(h.path("link"), h.path("dst.mig"), relay.Link{BitsPerS: 8e6}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.link.Close() })
	p.before = p.src.check()
	r := request("unix:" + h.path("link"))
	r.MemoryMode, r.Granularity, r.Compression = "Postcopy", "page", "none" // so that it takes its time
	r.KeepSource = keepSource
	told := make(chan struct{})
	p.told = told
	go func() {
		defer close(told)
		p.result, p.err = p.src.Migrate(h.ctx, r, ignoreProgress)
	}()
	p.src.awaitPhase(api.Serving)
	p.dst.awaitPhase(api.Running)
	return p
}

func (p *slowPostcopy) wantError(what string, err error, part string) {
	p.t.Helper()
	if err == nil || !strings.Contains(err.Error(), part) {
		p.t.Errorf("%s: %v; want %q in it", what, err, part)
	}
}

// cut ends the link, and waits until both sides say so.
func (p *slowPostcopy) cut() {
	p.t.Helper()
	p.link.Close()
	for m, want := range map[*machine]string{p.src: `"phase":"reconnecting"`, p.dst: `"stalled":"`} {
		p.eventually(m.name+" says that the connection is lost", func() bool {
			status, err := m.API.Migration(p.ctx)
			return err == nil && strings.Contains(string(status), want)
		})
	}
}

// TestRecover: while memory follows the guest nothing can be undone, and a link that is cut is replaced by another way to
// the same destination.
func TestRecover(t *testing.T) {
	p := startSlowPostcopy(t, false)
	p.wantError("cancel", p.src.API.CancelMigration(p.ctx), "too late: the guest runs at the destination")
	p.wantError("stop", p.src.API.Stop(p.ctx), "MiB of its memory would be lost")
	p.wantError("recover", p.src.API.RecoverMigration(p.ctx, api.RecoverRequest{}), "the connection stands")
	p.wantError("onward", p.dst.API.StartMigration(p.ctx, request("unix:/nowhere")), "memory is still arriving: ")

	p.cut()
	p.dst.verifyStatus("^dst: running, but paused until its memory comes, ")
	p.wantError("recover over a link that is cut", p.src.API.RecoverMigration(p.ctx, api.RecoverRequest{}), "still waits for its memory")
	p.wantError("recover at nobody's address", p.src.API.RecoverMigration(p.ctx, api.RecoverRequest{DestinationURL: "unix:/nowhere"}), "cannot reach")
	out, errs, code := run(t, "migrate", "--recover", "--api", p.src.APIPath, "--to", p.direct, "--json")
	if code != 0 || !bytes.Contains(out, []byte(`"status":"completed"`)) || !bytes.Contains(out, []byte(`"recovered_times":1`)) {
		t.Fatalf("recover: %d, %s%s\n%s", code, out, errs, p.src.Stderr())
	}
	<-p.told
	if p.err != nil || p.result.Status != migration.StatusCompleted || p.result.RecoveredTimes != 1 || p.result.EndedThere {
		t.Errorf("migrate: %v, %+v", p.err, p.result)
	}
	if code := p.src.awaitExit(); code != 0 || strings.Contains(p.src.Stderr(), "a second signal") {
		t.Errorf("the source, to which nobody gave a signal, ended with %d\n%s", code, p.src.Stderr())
	}
	if after := p.dst.checkRuns(); after < p.before {
		t.Errorf("the guest went from %d steps back to %d", p.before, after)
	}
	p.dst.stop()
}

// TestArrivalIsShown: a destination says that a machine is on its way to it.
func TestArrivalIsShown(t *testing.T) {
	hostTierOnly(t)
	vmmtest.NeedKVM(t)
	h := newHouse(t)
	src := h.startDirty("src", "", "pages=8192 progress=0", "--memory", "64M")
	dst, to := h.startIncoming("dst", "")
	dst.verifyStatus("^dst: incoming, its shape comes from the source\n$")
	r := request(to)
	r.Granularity, r.Compression, r.MaxBandwidthBytesPerSecond = "page", "none", 1<<20 // that it lasts
	ctx, cancel := context.WithCancel(h.ctx)
	defer cancel()
	result, err := src.Migrate(ctx, r, func(p migration.Progress) {
		if p.Round > 0 && ctx.Err() == nil {
			dst.verifyStatus("migration +a machine is arriving")
			cancel()
		}
	})
	if err != nil || result.Status != migration.StatusCancelled {
		t.Errorf("%v %+v", err, result)
	}
	src.stop()
}

// TestEndOfServing: the first signal to a source whose guest has left says what it would cost, the second one costs it.
func TestEndOfServing(t *testing.T) {
	p := startSlowPostcopy(t, false)
	signal := func() {
		if err := unix.Kill(p.src.PID(), unix.SIGTERM); err != nil {
			t.Fatal(err)
		}
	}
	signal()
	p.eventually("the source warns", func() bool { return strings.Contains(p.src.Stderr(), "a second signal ends it at once") })
	p.src.awaitPhase(api.Serving)
	signal()
	if code := p.src.awaitExit(); code != 1 || !strings.Contains(p.src.Stderr(), "the guest there is lost with it") {
		t.Errorf("the source ended with %d:\n%s", code, p.src.Stderr())
	}
	<-p.told
	if p.err != nil || p.result.Status != migration.StatusFailed {
		t.Errorf("migrate: %v, %+v", p.err, p.result)
	}
	if code := p.dst.awaitExit(); code != 1 || !strings.Contains(p.dst.Stderr(), "fineline: a part of the guest's memory is lost: the source died") {
		t.Errorf("the destination ended with %d:\n%s", code, p.dst.Stderr())
	}
	p.dst.checkLeftovers()
}

// TestDestinationDiesServing: the source whose guest died with its destination does not end as if all were well.
func TestDestinationDiesServing(t *testing.T) {
	p := startSlowPostcopy(t, false)
	if err := p.dst.Kill(); err != nil {
		t.Fatal(err)
	}
	const why = "fineline: the destination took the guest over and died\n"
	if code := p.src.awaitExit(); code != 1 || strings.Count(p.src.Stderr(), why) != 1 {
		t.Errorf("the source ended with %d:\n%s", code, p.src.Stderr())
	}
	<-p.told
	if p.err != nil || p.result.Status != migration.StatusFailed {
		t.Errorf("migrate: %v, %+v", p.err, p.result)
	}
	p.src.checkLeftovers()
}

// TestRecoverAfterDoubt: a guest has left ahead of its memory, unheard. When somebody says so, the source can be told another way to it.
func TestRecoverAfterDoubt(t *testing.T) {
	hostTierOnly(t)
	vmmtest.NeedKVM(t)
	h := newHouse(t)
	src := h.startDirty("src", "", "pages=512 lines=4 rate=200 verify=1 progress=0", "--memory", "64M")
	dst, direct := h.startIncoming("dst", string(inject.DestinationOwner)+"=cut")
	link, err := relay.Start(h.path("link"), h.path("dst.mig"), relay.Link{BitsPerS: 200e3}) // the hand-over takes a second
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { link.Close() })
	before := src.check()
	h.watchForTwo(src, dst)
	connected := h.watchJournal(h.path("src.journal"), journal.Precopy)
	told := make(chan *migration.Result, 1)
	go func() {
		r := request("unix:" + h.path("link"))
		r.MemoryMode = "Postcopy"
		result, _ := src.Migrate(h.ctx, r, ignoreProgress)
		told <- result
	}()
	if err := <-connected; err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(h.path("link")); err != nil { // nobody can be asked
		t.Fatal(err)
	}
	src.awaitPhase(api.InDoubt)
	if result := <-told; result == nil || result.Status != migration.StatusInDoubt {
		t.Errorf("migrate: %+v", result)
	}
	if err := src.API.ResolveMigration(h.ctx, api.DecisionDiscard); err != nil {
		t.Fatal(err)
	}
	src.awaitPhase(api.Serving)
	if err := src.API.ResolveMigration(h.ctx, api.DecisionDiscard); err == nil {
		t.Error("a doubt was settled twice")
	}
	out, errs, code := run(t, "migrate", "--recover", "--api", src.APIPath, "--to", direct, "--json")
	if code != 0 || !bytes.Contains(out, []byte(`"status":"completed"`)) {
		t.Fatalf("recover: %d, %s%s\n%s", code, out, errs, src.Stderr())
	}
	if code := src.awaitExit(); code != 0 {
		t.Errorf("the source ended with %d", code)
	}
	if after := dst.checkRuns(); after < before {
		t.Errorf("the guest went from %d steps back to %d", before, after)
	}
	dst.stop()
	checkJournals(t, src, dst)
}
