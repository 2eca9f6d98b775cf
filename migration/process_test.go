package migration

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/fineline-vmm/fineline/memory"
	"github.com/fineline-vmm/fineline/migration/inject"
	"github.com/fineline-vmm/fineline/migration/journal"
	"github.com/fineline-vmm/fineline/migration/wire"
)

// The law again, with real processes, real SIGKILLs and proofs of death by pidfd: the test binary starts
// itself once for each side. What a side does it tells on its standard output, with the instant on the
// clock that both share.

const (
	sideEnv    = "FINELINE_TEST_SIDE"
	folderEnv  = "FINELINE_TEST_FOLDER"
	triggerEnv = "FINELINE_TEST_TRIGGER" // what the fault needs in order to be reached
	modeEnv    = "FINELINE_TEST_MODE"
)

const sidePeerTimeout = 3 * time.Second

// event is one line of a side's output.
type event struct {
	What string `json:"what"` // run, stop, sum, done
	At   int64  `json:"at"`
	Sum  uint32 `json:"sum,omitempty"` // of all RAM, while nobody runs
	Text string `json:"text,omitempty"`
}

// runSide is the main function of one side.
func runSide(name string) int {
	logrus.SetLevel(logrus.PanicLevel)
	if err := playSide(name); err != nil {
		fmt.Fprintln(os.Stderr, name, err)
		return 1
	}
	return 0
}

func playSide(name string) error {
	var mu sync.Mutex
	out := json.NewEncoder(os.Stdout)
	tell := func(e event) {
		mu.Lock()
		defer mu.Unlock()
		e.At = int64(hostClock{}.Now())
		_ = out.Encode(e)
	}
	mem, err := memory.New(testRegions(testPages), memory.Options{})
	if err != nil {
		return err
	}
	folder := os.Getenv(folderEnv)
	j, err := journal.Open(filepath.Join(folder, name+".journal"))
	if err != nil {
		return err
	}
	at, err := ParseAddress("unix:" + filepath.Join(folder, "socket"))
	if err != nil {
		return err
	}
	m := machineOf(mem, &world{tell: func(what string) { tell(event{What: what}) }}, name)
	sum := func() error {
		tell(event{What: "sum", Sum: checksum(mem)})
		return nil
	}
	finished := func(err error) { tell(event{What: "done", Text: fmt.Sprint(err)}) }
	if name == source {
		if err := m.boot(); err != nil {
			return err
		}
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		m.onSave = func() error {
			if os.Getenv(triggerEnv) == "cancel" {
				cancel()
			}
			return sum()
		}
		opts := SendOptions{MachineID: "guest", Journal: j, PeerTimeout: sidePeerTimeout, Mode: wire.Mode(os.Getenv(modeEnv))}
		neverConverge(&opts, mem)
		_, err := Send(ctx, m, at, opts)
		finished(err)
	} else {
		if !wire.Mode(os.Getenv(modeEnv)).AfterCommit() {
			m.onRun = sum
		}
		complete := make(chan error, 1)
		l, err := Listen(context.Background(), at, ListenOptions{Journal: j, PeerTimeout: sidePeerTimeout, Complete: func(err error) { complete <- err }})
		if err != nil {
			return err
		}
		tell(event{What: "listening"})
		_, err = l.Receive(context.Background(), m)
		if err == nil && wire.Mode(os.Getenv(modeEnv)).AfterCommit() {
			if err := <-complete; err != nil {
				m.end() // a guest without its memory
			} else {
				tell(event{What: "compared", Text: fmt.Sprint(m.compareSteps())})
			}
		}
		finished(err)
	}
	// Live on, running or not, until the test has seen enough: a process that ends proves its death.
	_, _ = io.Copy(io.Discard, os.Stdin)
	return nil
}

func checksum(mem *memory.Guest) uint32 {
	page := make([]byte, memory.PageSize)
	sum := uint32(0)
	for _, r := range mem.Regions() {
		for off := uint64(0); off < r.SizeBytes; off += memory.PageSize {
			if mem.ReadAt(r.Base+memory.GPA(off), page) == nil {
				sum = crc32.Update(sum, crc32.IEEETable, page)
			}
		}
	}
	return sum
}

// process is one side as its parent sees it.
type process struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	events chan event // closed when the process has ended
	log    []event
	ended  bool
	stderr bytes.Buffer
}

func startSide(t *testing.T, mode wire.Mode, name, folder, plan, trigger string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(os.Args[0]), events: make(chan event, 64)}
	p.cmd.Env = append(os.Environ(), sideEnv+"="+name, folderEnv+"="+folder, triggerEnv+"="+trigger, modeEnv+"="+string(mode), inject.EnvVar+"="+plan,
		"GORACE=atexit_sleep_ms=0") // else each process of a race test takes a second to end
	p.cmd.Stderr = &p.stderr
	var err error
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// Each wait for a side ends with its process.
	guard := time.AfterFunc(hangGuard, func() { _ = p.cmd.Process.Kill() })
	go func() {
		defer close(p.events)
		lines := bufio.NewScanner(stdout)
		for lines.Scan() {
			var e event
			if json.Unmarshal(lines.Bytes(), &e) == nil {
				p.events <- e
			}
		}
	}()
	t.Cleanup(func() {
		p.stdin.Close()
		for e := range p.events {
			p.log = append(p.log, e)
		}
		_ = p.cmd.Wait()
		if !guard.Stop() {
			t.Errorf("%s hung and was killed: %+v", name, p.log)
		}
		if p.stderr.Len() > 0 {
			t.Errorf("%s: %s", name, &p.stderr)
		}
	})
	return p
}

// await reads events until the wanted one, or the end of the process.
func (p *process) await(what string) {
	for e := range p.events {
		p.log = append(p.log, e)
		if e.What == what {
			return
		}
	}
	p.ended = true
}

// runs reports whether the guest runs in this process now.
func (p *process) runs() bool {
	running := false
	for _, e := range p.log {
		switch e.What {
		case "run":
			running = true
		case "stop":
			running = false
		}
	}
	return running && !p.ended
}

func (p *process) sum() uint32 {
	for _, e := range p.log {
		if e.What == "sum" {
			return e.Sum
		}
	}
	return 0
}

func TestKillAtEveryPoint(t *testing.T) {
	if testing.Short() {
		t.Skip("starts two processes for each case; -short was given")
	}
	cases := slices.DeleteFunc(lawCases(), func(c lawCase) bool { return c.action != inject.Kill && c.action != inject.Cut })
	eachLawCase(t, cases, playPoint)
}

func playPoint(t *testing.T, c lawCase) {
	trigger := ""
	if c.point == inject.SourceCancelled {
		trigger = "cancel"
	}
	plan := c.plan()
	folder := t.TempDir()
	dst := startSide(t, c.mode, destination, folder, plan, trigger)
	dst.await("listening")
	src := startSide(t, c.mode, source, folder, plan, trigger)
	src.await("done")
	dst.await("done")
	owner := nobody
	switch {
	case src.runs() && dst.runs():
		t.Fatal("both run")
	case src.runs():
		owner = source
	case dst.runs():
		owner = destination
	}
	if wanted := lawfulOwners(c.mode, c.point, c.action); !slices.Contains(wanted, owner) {
		t.Errorf("%q runs the guest, want %q\nsource: %+v\ndestination: %+v", owner, wanted, src.log, dst.log)
	}
	verifyNoOverlap(t, src, dst)
	if i := slices.IndexFunc(dst.log, func(e event) bool { return e.What == "compared" }); i >= 0 && dst.log[i].Text != "<nil>" {
		t.Errorf("the destination's memory is wrong: %s", dst.log[i].Text)
	}
	if c.mode == wire.ModePrecopy && dst.runs() && src.sum() != dst.sum() {
		t.Errorf("the source's memory has sum %08x and the destination's %08x", src.sum(), dst.sum())
	}
}

// verifyNoOverlap merges both logs by the common clock: between a "run" of one side and its "stop" (or
// its death, which the other side can only have used after it happened) there is no "run" of the other.
func verifyNoOverlap(t *testing.T, src, dst *process) {
	t.Helper()
	type step struct {
		event
		side *process
	}
	var steps []step
	for _, p := range []*process{src, dst} {
		for _, e := range p.log {
			if e.What == "run" || e.What == "stop" {
				steps = append(steps, step{e, p})
			}
		}
	}
	slices.SortFunc(steps, func(a, b step) int { return int(a.At - b.At) })
	var runner *process
	for _, s := range steps {
		switch {
		case s.What == "stop":
			runner = nil
		case runner != nil && runner != s.side && !runner.ended:
			t.Errorf("two run at %d\nsource: %+v\ndestination: %+v", s.At, src.log, dst.log)
		default:
			runner = s.side
		}
	}
}
