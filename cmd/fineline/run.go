package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/signal"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/fineline-vmm/fineline/coherence/track"
	"github.com/fineline-vmm/fineline/devices/socket"
	"github.com/fineline-vmm/fineline/vmm"
	"github.com/fineline-vmm/fineline/vmm/api"
)

// shutdownTimeout bounds the wait for API requests under way at the end.
const shutdownTimeout = 5 * time.Second

// runFlags are the flags of `fineline run`.
type runFlags struct {
	kernel, initrd, cmdline string
	cpus                    int
	memory                  sizeBytes
	hugePages               bool
	cpu                     string
	dirty                   string
	lineBaseline            string
	lineBudget              sizeBytes
	serial                  string
	apiPath                 string
	id                      string
	incoming                string
	tls                     tlsFlags
	journal                 string
	noReboot                bool
	postcopyHomed           bool
}

const (
	defaultCPUs   = 1
	defaultMemory = 256 << 20
)

// lineBaselines are the values of --line-baseline.
var lineBaselines = map[string]track.Baseline{"hash": track.Hash, "twin": track.Twin, "none": track.None}

func newRunCommand() *cobra.Command {
	f := &runFlags{}
	c := &cobra.Command{
		Use:   "run --kernel FILE|builtin:NAME | --incoming ADDR | --api PATH",
		Short: "Run a guest, or wait for one to arrive",
		Long: `Run a guest in this process until it powers off.

With --kernel the guest is booted at once. With --incoming ADDR it comes from
another process by migration; the machine's shape is the source's then, and flags
that are given must agree with it. With --api alone the machine is configured and
started by clients of the socket.

On a terminal, Ctrl-A x ends the run; Ctrl-C too, as long as no guest is here.`,
		RunE: func(c *cobra.Command, _ []string) error { return f.run(c) },
	}
	fl := c.Flags()
	fl.StringVar(&f.kernel, "kernel", "", "PVH or multiboot ELF, Linux bzImage or vmlinux, or builtin:NAME")
	fl.StringVar(&f.initrd, "initrd", "", "initial RAM disk")
	fl.StringVar(&f.cmdline, "cmdline", "", "kernel command line")
	fl.IntVar(&f.cpus, "cpus", defaultCPUs, "number of vCPUs")
	f.memory = defaultMemory
	fl.Var(&f.memory, "memory", "guest memory, for example 512M or 1G")
	fl.BoolVar(&f.hugePages, "huge-pages", false, "back guest memory with huge pages of 2 MiB")
	fl.StringVar(&f.cpu, "cpu", string(vmm.CPUHost), "CPU model: host, or baseline (x86-64-v2) for moves between unlike hosts")
	fl.StringVar(&f.dirty, "dirty", "log", "how KVM reports dirty pages: log or ring")
	fl.StringVar(&f.lineBaseline, "line-baseline", "hash", "what tracking by the line compares pages with: hash (an eighth of the tracked memory), twin (a copy) or none")
	fl.Var(&f.lineBudget, "line-budget", "most memory for that, for example 64M; pages beyond it are reported whole (default: enough for the baseline of all memory)")
	fl.StringVar(&f.serial, "serial", "stdio", "serial port: stdio, file:PATH, unix:PATH or none")
	fl.StringVar(&f.apiPath, "api", "", "serve the control API on this Unix socket")
	fl.StringVar(&f.apiPath, "api-sock", "", "the same as --api, for Firecracker's clients")
	fl.StringVar(&f.id, "id", "fineline", "name of the machine in the API")
	fl.StringVar(&f.incoming, "incoming", "", "wait for a migration on unix:PATH or tcp:HOST:PORT")
	f.tls.add(fl)
	fl.StringVar(&f.journal, "journal", "", "file for the journal of migration phases (default: in the user's runtime directory)")
	fl.BoolVar(&f.postcopyHomed, "postcopy-homed", false, "in post-copy have missed lines come before their pages: a reference, slow, for small guests")
	fl.BoolVar(&f.noReboot, "no-reboot", false, "end the run when the guest asks for a reset")
	_ = fl.MarkHidden("api-sock") // fails only for a flag that is not there
	return c
}

// config checks the flags against each other.
func (f *runFlags) config(changed func(string) bool) (vmm.Config, error) {
	cfg := vmm.Config{
		CPUs: f.cpus, MemoryBytes: uint64(f.memory), HugePages: f.hugePages,
		CPUModel: vmm.CPUModel(f.cpu), NoReboot: f.noReboot, DirtyRing: f.dirty == "ring",
		HomedMissing: f.postcopyHomed,
		Boot:         vmm.BootFiles{Kernel: f.kernel, Initrd: f.initrd, Cmdline: f.cmdline},
	}
	var known bool
	cfg.LineBudgetBytes = uint64(f.lineBudget)
	cfg.LineBaseline, known = lineBaselines[f.lineBaseline]
	switch {
	case !known:
		return cfg, fmt.Errorf("--line-baseline %q: choose hash, twin or none", f.lineBaseline)
	case f.dirty != "log" && f.dirty != "ring":
		return cfg, fmt.Errorf("--dirty %q: choose log or ring", f.dirty)
	case f.kernel == "" && f.incoming == "" && f.apiPath == "":
		return cfg, errors.New("give --kernel, --incoming or --api")
	case f.incoming != "" && (f.kernel != "" || f.initrd != "" || f.cmdline != ""):
		return cfg, errors.New("--incoming takes the guest from the source: leave out --kernel, --initrd and --cmdline")
	case f.incoming == "" && f.tls != tlsFlags{}:
		return cfg, errors.New("--tls-cert, --tls-key and --tls-ca are for --incoming; to send, give them to fineline migrate")
	case f.incoming == "" && f.postcopyHomed:
		return cfg, errors.New("--postcopy-homed is for --incoming")
	case f.kernel == "" && f.initrd != "":
		return cfg, errors.New("--initrd needs --kernel")
	}
	if err := cfg.Validate(); err != nil {
		return cfg, err
	}
	if f.incoming != "" { // what was not given is the source's
		if !changed("cpus") {
			cfg.CPUs = 0
		}
		if !changed("memory") {
			cfg.MemoryBytes = 0
		}
		here := cfg
		cfg.Accept = func(there vmm.Config) error { return agree(changed, here, there) }
	}
	return cfg, nil
}

// agree refuses a machine that is not what the flags that were given say.
func agree(changed func(string) bool, here, there vmm.Config) error {
	for _, f := range []struct {
		name        string
		here, there any
	}{
		{"cpus", here.CPUs, there.CPUs},
		{"memory", sizeText(here.MemoryBytes), sizeText(there.MemoryBytes)},
		{"huge-pages", here.HugePages, there.HugePages},
		{"cpu", here.CPUModel, there.CPUModel},
		{"dirty", dirtyKind(here), dirtyKind(there)},
		{"no-reboot", here.NoReboot, there.NoReboot},
	} {
		if changed(f.name) && f.here != f.there {
			return fmt.Errorf("--%s %v here, the source has %v", f.name, f.here, f.there)
		}
	}
	return nil
}

// sizeText writes a size as the flag is written.
func sizeText(bytes uint64) string {
	size := sizeBytes(bytes)
	return size.String()
}

func dirtyKind(c vmm.Config) string {
	if c.DirtyRing {
		return "ring"
	}
	return "log"
}

func (f *runFlags) run(c *cobra.Command) (err error) {
	cfg, err := f.config(c.Flags().Changed)
	if err != nil {
		return usageError{err}
	}
	// A reader that goes away (`fineline run | head`) fails writes; it does not kill us,
	// which would leave the terminal raw and the sockets behind.
	signal.Ignore(unix.SIGPIPE)
	con, err := openConsole(f.serial)
	if err != nil {
		return err
	}
	i := newInstance(cfg, con, f.incoming != "")
	i.journalPath = f.journal
	defer func() {
		outcome, closeErr := i.close()
		if err == nil {
			select {
			case err = <-i.memoryLost(): // what the guest's run ended with is only how it showed
			default:
				err = outcomeError(outcome)
			}
		}
		err = errors.Join(err, closeErr)
	}()
	if f.journal != "" { // a process cannot be given another one later, when its guest is to move
		if _, err := i.openJournal(); err != nil {
			return err
		}
	}
	if f.incoming != "" { // before the API: who sees that it answers may migrate
		if err := i.listen(c.Context(), f.incoming, f.tls); err != nil {
			return err
		}
	}
	if f.apiPath != "" {
		stopServing, err := serveAPI(i.session, f.apiPath, f.id)
		if err != nil {
			return err
		}
		defer stopServing()
	}
	if f.kernel != "" {
		if err := i.session.Start(c.Context()); err != nil {
			return err
		}
	}
	err = i.wait(c.Context())
	return errors.Join(err, i.endMigration())
}

// serveAPI answers on the socket until the function that it returns is called.
func serveAPI(s *api.Session, path, id string) (stop func(), err error) {
	l, err := socket.Listen(path)
	if err != nil {
		return nil, fmt.Errorf("control API: %w", err)
	}
	server := api.NewServer(s, api.ServerConfig{ID: id, Version: version(), Log: logrus.StandardLogger()})
	served := make(chan struct{})
	go func() {
		defer close(served)
		if err := server.Serve(l); err != nil && !errors.Is(err, net.ErrClosed) {
			logrus.WithError(err).Error("the control API has ended")
		}
	}()
	return func() {
		ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
		defer cancel()
		if err := server.Shutdown(ctx); err != nil {
			logrus.WithError(err).Debug("API shutdown")
		}
		<-served
	}, nil
}

// wait returns when the run has ended, for whatever reason.
func (i *instance) wait(ctx context.Context) error {
	select {
	case <-i.arrived:
	case <-ctx.Done():
		return nil
	case <-i.stop:
		return nil
	case <-i.console.quit:
		return nil
	case err := <-i.incomingFailed():
		return err
	}
	select {
	case <-i.current().Done():
	case err := <-i.memoryLost():
		return err
	case <-ctx.Done():
	case <-i.stop:
	case <-i.console.quit:
	}
	return nil
}
