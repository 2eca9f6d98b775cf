package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"github.com/sirupsen/logrus"

	"github.com/fineline-vmm/fineline/cmd/internal/watch"
	"github.com/fineline-vmm/fineline/devices/serial"
	"github.com/fineline-vmm/fineline/migration/journal"
	"github.com/fineline-vmm/fineline/vmm"
	"github.com/fineline-vmm/fineline/vmm/api"
)

// instance is the one machine of a `fineline run` process. It is the
// api.Controller: the session calls it one operation at a time, in a phase that
// allows the operation.
type instance struct {
	session *api.Session
	console *console

	stop     chan struct{} // closed when a client asked for the end
	stopOnce sync.Once
	arrived  chan struct{} // closed when machine is set

	mu      sync.Mutex
	cfg     vmm.Config // what the next machine is built from; before the start
	machine *vmm.Machine
	logFile *os.File
	out     *outgoing // the migration under way, or nil
	in      *incoming // a destination, or nil
	closing bool      // a machine that still comes is stopped

	// machineID names the guest for its whole life, wherever it runs.
	machineID   string
	journalPath string
	journal     *journal.Journal
}

var _ api.Controller = (*instance)(nil)

func newInstance(cfg vmm.Config, c *console, isIncoming bool) *instance {
	i := &instance{cfg: cfg, console: c, stop: make(chan struct{}), arrived: make(chan struct{})}
	i.cfg.SerialOut = c.out
	i.machineID = newMachineID()
	i.session = api.NewSession(i, isIncoming)
	return i
}

func (i *instance) MachineConfig() api.MachineConfig {
	i.mu.Lock()
	defer i.mu.Unlock()
	c := i.cfg
	out := api.MachineConfig{VCPUCount: c.CPUs, MemSizeMiB: int64(c.MemoryBytes >> 20), CPUTemplate: "None", HugePages: "None"}
	if c.CPUModel == vmm.CPUBaseline {
		out.CPUTemplate = "baseline"
	}
	if c.HugePages {
		out.HugePages = "2M"
	}
	return out
}

func (i *instance) SetMachineConfig(c api.MachineConfig) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.cfg.CPUs = c.VCPUCount
	i.cfg.MemoryBytes = uint64(c.MemSizeMiB) << 20
	i.cfg.HugePages = c.HugePages == "2M"
	i.cfg.CPUModel = vmm.CPUHost
	if c.CPUTemplate == "baseline" {
		i.cfg.CPUModel = vmm.CPUBaseline
	}
	return nil
}

func (i *instance) BootSource() (api.BootSource, bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	b := i.cfg.Boot
	return api.BootSource{KernelImagePath: b.Kernel, InitrdPath: b.Initrd, BootArgs: b.Cmdline}, b.Kernel != ""
}

func (i *instance) SetBootSource(b api.BootSource) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.cfg.Boot = vmm.BootFiles{Kernel: b.KernelImagePath, Initrd: b.InitrdPath, Cmdline: b.BootArgs}
	return nil
}

// SetLogger sends this process's log to a file.
func (i *instance) SetLogger(l api.LoggerConfig) error {
	if l.Level != "" && !strings.EqualFold(l.Level, "off") {
		level, err := logrus.ParseLevel(l.Level)
		if err != nil {
			return err
		}
		logrus.SetLevel(level)
	}
	if strings.EqualFold(l.Level, "off") {
		logrus.SetOutput(io.Discard)
	}
	if l.LogPath == "" {
		return nil
	}
	f, err := os.OpenFile(l.LogPath, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	logrus.SetOutput(f)
	i.mu.Lock()
	defer i.mu.Unlock()
	old := i.logFile
	i.logFile = f
	if old != nil {
		return old.Close()
	}
	return nil
}

// Metrics are the counters of the machine's devices.
func (i *instance) Metrics() any {
	if m := i.current(); m != nil {
		return m.Metrics()
	}
	return nil // not a nil *Machine's counters in an interface
}

// Standby is the guest that has moved and is kept.
func (i *instance) Standby() *api.Standby {
	i.mu.Lock()
	out := i.out
	i.mu.Unlock()
	if out == nil || !out.keeps() {
		return nil
	}
	return standbyOf(out.standby.Status())
}

// Track begins to watch the lines that the guest writes.
func (i *instance) Track(r api.TrackRequest) (api.LineWatch, error) {
	m := i.current()
	if m == nil {
		return nil, errors.New("no machine has been started: it writes no lines yet")
	}
	w, err := watch.Open(m, r)
	if err != nil {
		return nil, err // and no nil *Watch in an interface
	}
	return w, nil
}

// Start builds the machine, boots its guest and lets it run.
func (i *instance) Start(context.Context) error {
	i.mu.Lock()
	cfg := i.cfg
	i.mu.Unlock()
	if cfg.Boot.Kernel == "" {
		return errors.New("no kernel: set /boot-source first, or start with --kernel")
	}
	m, err := vmm.New(cfg)
	if err != nil {
		return err
	}
	if err = m.Boot(); err == nil {
		err = m.Resume()
	}
	if err != nil {
		return errors.Join(err, m.Close())
	}
	i.adopt(m)
	return nil
}

// adopt takes a machine into care.
func (i *instance) adopt(m *vmm.Machine) {
	i.mu.Lock()
	i.machine = m
	i.cfg = m.Config()
	closing := i.closing
	i.mu.Unlock()
	if closing {
		m.Stop()
	}
	close(i.arrived)
	go func() {
		logFaults(m)
		i.session.GuestEnded()
	}()
	if i.console.in != nil {
		go i.feed(m)
	}
}

// feed gives the console's input to the guest until either ends.
func (i *instance) feed(m *vmm.Machine) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	buf := make([]byte, 4096)
	for {
		n, err := i.console.in.Read(buf)
		if n > 0 {
			if err := m.Feed(ctx, buf[:n]); err != nil {
				return // the machine was closed
			}
		}
		if err != nil {
			return
		}
	}
}

func (i *instance) current() *vmm.Machine {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.machine
}

func (i *instance) Pause(context.Context) error { return i.current().Pause() }

func (i *instance) Resume(context.Context) error { return i.current().Resume() }

// Stop lets `fineline run` end; it closes the machine and the API server.
func (i *instance) Stop(context.Context) error {
	i.stopOnce.Do(func() { close(i.stop) })
	return nil
}

// close ends what still runs and returns how the guest's run ended.
func (i *instance) close() (vmm.Outcome, error) {
	i.mu.Lock()
	in, m := i.in, i.machine
	i.closing = true
	i.mu.Unlock()
	if m != nil { // first: the listener's end takes away what memory is still to come, and no vCPU may look for it then
		m.Stop()
	}
	var errs []error
	if in != nil { // a machine may be arriving
		errs = append(errs, in.listener.Close())
		<-in.over
	}
	i.mu.Lock()
	m = i.machine
	logFile := i.logFile
	i.mu.Unlock()
	outcome := vmm.Outcome{Kind: vmm.EndedByUser}
	if m != nil {
		m.Stop()
		outcome = m.Outcome()
		errs = append(errs, m.Close())
	}
	errs = append(errs, i.closeJournal(), i.console.close())
	if logFile != nil {
		logrus.SetOutput(os.Stderr)
		errs = append(errs, logFile.Close())
	}
	return outcome, errors.Join(errs...)
}

// outcomeError maps the end of a run to what the process reports.
func outcomeError(o vmm.Outcome) error {
	switch o.Kind {
	case vmm.EndedByError:
		return fmt.Errorf("the guest's run ended: %w", o.Err)
	case vmm.EndedByDebugExit:
		if o.SerialErr != nil { // the status is the guest's to choose
			logrus.Warn(o.SerialErr)
		}
		return exitStatus(o.DebugExitCode & 0xff)
	case vmm.EndedByUser:
		if errors.Is(o.SerialErr, serial.ErrUnread) { // a console without a reader, and that is no news
			logrus.Warn(o.SerialErr)
			return nil
		}
		return o.SerialErr
	default:
		return o.SerialErr // a test log that is not whole is no success
	}
}
