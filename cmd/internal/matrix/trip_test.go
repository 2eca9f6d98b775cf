package matrix

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"

	"github.com/sirupsen/logrus"

	"github.com/fineline-vmm/fineline/memory"
	"github.com/fineline-vmm/fineline/migration"
	"github.com/fineline-vmm/fineline/migration/journal"
	"github.com/fineline-vmm/fineline/migration/wire"
	"github.com/fineline-vmm/fineline/vmm"
)

// source is a machine that leaves, as cmd/fineline gives it to package migration.
type source struct {
	*vmm.Machine
	running bool
}

var (
	_ migration.Source         = source{}
	_ migration.Throttler      = source{}
	_ migration.RestoreToucher = source{}
)

func (s source) SaveState() ([]byte, error) { return s.Save(s.running) }
func (s source) RestorePages(state []byte) ([]memory.GPA, error) {
	return vmm.RestorePages(state)
}
func (s source) Release() { s.HandOver() }
func (s source) Resume() error {
	if !s.running {
		return nil
	}
	return s.Machine.Resume()
}

// target is the machine that arrives.
type target struct {
	local vmm.Config
	m     *vmm.Machine
	run   func(*vmm.Machine, bool) error
	was   bool // running, at the source
	held  bool
}

var (
	_ migration.Target = (*target)(nil)
	_ migration.Holder = (*target)(nil)
)

func (t *target) Prepare(description []byte) (_ *memory.Guest, err error) {
	if t.m, err = vmm.NewFromDescription(description, t.local); err != nil {
		return nil, err
	}
	return t.m.Memory(), nil
}

func (t *target) RestoreState(sealed []byte) (err error) {
	t.was, err = t.m.Restore(sealed)
	return err
}

func (t *target) Run() error { return t.run(t.m, t.was) }

func (t *target) Discard() {
	t.m.HandOver()
	_ = t.m.Close()
}

func (t *target) Pause() error {
	t.held = t.m.Status() == vmm.Running
	return t.m.Pause()
}

func (t *target) Resume() error {
	if !t.held {
		return nil
	}
	return t.m.Resume()
}

// trip is how one migration is made. The zero value is the default of everything.
type trip struct {
	opts      migration.SendOptions
	tcp       bool
	predictor string
	// hold keeps the guest from running at the destination until all memory is there and was compared.
	hold bool
	// local is what the destination insists on.
	local vmm.Config
	// progress, if set, is told of the migration's, in a goroutine of that, and may cancel it: with nil as a user does,
	// or with why the test has failed.
	progress func(p migration.Progress, cancel context.CancelCauseFunc)
	// arrived, if set, is called in a goroutine once the guest has been let go at the destination; leave is the
	// end of that process.
	arrived func(m *vmm.Machine, leave func())
}

func (p trip) String() string {
	o := p.opts
	return fmt.Sprintf("%s by the %s against %s (budget %d), %d streams, %+v, at most %d B/s, tcp %t, predictor %q, held %t",
		o.Mode, o.Granularity, o.Baseline, o.BaselineBudgetBytes, o.Streams, o.Rule, o.MaxBandwidthBytesPerS, p.tcp, p.predictor, p.hold)
}

// errWrong is wrapped by what was found at the arrival.
var errWrong = errors.New("wrong memory has arrived")

// migrate moves the guest to a new machine. With an error of package migration the guest is where it was.
func (g *guest) migrate(p trip) (*migration.Result, error) {
	g.trips++
	file := func(name string) string { return filepath.Join(g.dir, fmt.Sprintf("%s%d", name, g.trips)) }
	mine, err := journal.Open(filepath.Join(g.dir, "source"))
	if err != nil {
		return nil, err
	}
	defer func() { _ = mine.Close() }()
	yours, err := journal.Open(file("destination"))
	if err != nil {
		return nil, err
	}
	defer func() { _ = yours.Close() }()
	address := "unix:" + file("s")
	if p.tcp {
		address = "tcp:127.0.0.1:0"
	}
	at, err := migration.ParseAddress(address)
	if err != nil {
		return nil, err
	}
	quiet := logrus.New()
	quiet.SetLevel(logrus.FatalLevel)
	l, err := migration.Listen(g.ctx, at, migration.ListenOptions{Journal: yours, Predictor: p.predictor, Log: quiet})
	if err != nil {
		return nil, err
	}
	defer func() { _ = l.Close() }()

	from := source{Machine: g.m, running: g.m.Status() == vmm.Running}
	var wrong error
	var after sync.WaitGroup
	defer after.Wait()
	to := &target{local: p.local, run: func(m *vmm.Machine, resume bool) error {
		if p.opts.Mode != wire.ModePostcopy && p.opts.Mode != wire.ModeHybrid {
			wrong = compare(from.Memory(), m.Memory())
		}
		if !resume || p.hold {
			return nil
		}
		err := m.Resume()
		if p.arrived != nil {
			after.Go(func() { p.arrived(m, func() { _ = l.Close() }) })
		}
		return err
	}}
	to.local.SerialOut = g.out
	received := make(chan error, 1)
	ctx, cancel := context.WithCancelCause(g.ctx)
	defer cancel(nil)
	receiving, stop := context.WithCancel(g.ctx)
	defer stop()
	go func() {
		_, err := l.Receive(receiving, to)
		received <- err
	}()
	p.opts.MachineID, p.opts.Journal, p.opts.Log = g.id, mine, quiet
	if p.progress != nil {
		p.opts.Progress = func(at migration.Progress) { p.progress(at, cancel) }
	}
	r, err := migration.Send(ctx, from, l.Address(), p.opts)
	failed := context.Cause(ctx)
	if errors.Is(failed, context.Canceled) {
		failed = nil
	}
	if err != nil {
		stop()
		return r, errors.Join(err, failed, g.refused(<-received))
	}
	if err := <-received; err != nil {
		return r, err
	}
	if p.hold || !from.running {
		wrong = errors.Join(wrong, compare(from.Memory(), to.m.Memory()))
	}
	g.close(g.m)
	g.m = to.m
	if p.hold && from.running {
		g.resume()
	}
	if wrong != nil {
		return r, fmt.Errorf("%w: %w", errWrong, wrong)
	}
	return r, failed
}

// refused is nil for a destination that has thrown away what came.
func (g *guest) refused(err error) error {
	var discarded *migration.DiscardedError
	if errors.As(err, &discarded) {
		return nil
	}
	return fmt.Errorf("the destination: %w", err)
}
