package migration

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"runtime"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/fineline-vmm/fineline/migration/identity"
	"github.com/fineline-vmm/fineline/migration/inject"
	"github.com/fineline-vmm/fineline/migration/journal"
	"github.com/fineline-vmm/fineline/migration/wire"
)

// TimeoutStrategy says what happens when Timeout is over. Names and meaning are Cloud Hypervisor's
// (timeout_strategy).
type TimeoutStrategy string

// The strategies.
const (
	TimeoutCancel TimeoutStrategy = "cancel" // the guest stays at the source
	TimeoutIgnore TimeoutStrategy = "ignore" // it is paused and moved, whatever the downtime
)

// SendOptions configures Send. MachineID and Journal are required; the zero value of the rest means
// the default.
type SendOptions struct {
	MachineID string           // names the guest for its whole life, wherever it runs; at most 128 bytes
	Journal   *journal.Journal // of this process; the caller closes it
	Build     string           // of this program, shown to the peer
	TLS       *tls.Config      // from TLSFiles, for a tcp: address; nil: plain text

	Mode        wire.Mode   // "": pre-copy
	Granularity Granularity // "": line
	// Baseline and BaselineBudgetBytes are what pages are compared with, and the most memory that may take.
	Baseline            Baseline    // "": auto
	BaselineBudgetBytes uint64      // 0: half of the guest's memory
	Compression         Compression // "": auto
	// Streams is how many connections carry pages while the guest runs at the source, each compared and
	// sent by a worker of its own.
	Streams int // 0: one for each of this host's processors, at most 4

	Rule                  Rule            // MaxDowntime 300 ms, MaxRounds 30, StallRounds 5
	MaxBandwidthBytesPerS uint64          // while the guest runs; 0: no limit
	Timeout               time.Duration   // until the commit; 0: one hour
	TimeoutStrategy       TimeoutStrategy // "": cancel

	PeerTimeout    time.Duration // a peer silent for so long is taken for lost; 0: 10 s
	ResolveTimeout time.Duration // how long a source in doubt asks by itself, or reconnects in post-copy; 0: 30 s
	// Recover asks to connect anew after a connection was lost in post-copy. The source tries by itself, too; while
	// nothing is lost nobody reads from it.
	Recover <-chan Recovery
	// GiveUp, when closed, ends a post-copy with ErrGiveUp: memory that the destination lacks then is lost, and the guest
	// with it. Before the commit it means nothing: there ctx ends a migration.
	GiveUp <-chan struct{}

	// Standby, if set, keeps this process's guest as it was at the switch and takes checkpoints of it from the
	// destination. When Send returns without an error the caller calls Standby.Wait.
	Standby *Standby

	// Accepted, if set, is called in the goroutine of Send when the destination has promised to take the machine, and nothing of
	// it was touched: the time to end what a guest that leaves must not have, such as checkpoints to the source before (Listener.EndCheckpoints).
	Accepted func()

	// Progress, if set, is called at each phase and round and besides at most 20 times a second. It
	// must not block. Calls come from more than one goroutine, but never two at once.
	Progress func(Progress)
	Log      logrus.FieldLogger // nil: the standard logger

	hooks hooks
}

// hooks are what tests replace.
type hooks struct {
	clock    clock
	liveness identity.Liveness
	plan     *inject.Plan
	self     *identity.Process
	dial     func(context.Context) (net.Conn, error)
}

// Defaults, see SendOptions.
const (
	DefaultMaxDowntime    = 300 * time.Millisecond
	DefaultMaxRounds      = 30
	DefaultStallRounds    = 5
	DefaultTimeout        = time.Hour
	maxDefaultStreams     = 4
	DefaultPeerTimeout    = 10 * time.Second
	DefaultResolveTimeout = 30 * time.Second
)

func (o *SendOptions) complete(to Address) error {
	if o.MachineID == "" {
		return errors.New("migration without a machine id")
	}
	if o.Journal == nil {
		return errors.New("migration without a journal")
	}
	if o.TimeoutStrategy == "" {
		o.TimeoutStrategy = TimeoutCancel
	}
	if o.TimeoutStrategy != TimeoutCancel && o.TimeoutStrategy != TimeoutIgnore {
		return fmt.Errorf("unknown timeout strategy %q; use cancel or ignore", o.TimeoutStrategy)
	}
	setDefault(&o.Mode, wire.ModePrecopy)
	if err := o.checkLocal(to); err != nil {
		return err
	}
	setDefault(&o.Granularity, GranularityLine)
	setDefault(&o.Baseline, BaselineAuto)
	setDefault(&o.Compression, CompressionAuto)
	setDefault(&o.Streams, min(runtime.NumCPU(), maxDefaultStreams))
	if err := errors.Join(o.Granularity.validate(), o.Baseline.validate(), o.Compression.validate()); err != nil {
		return err
	}
	if !o.Mode.Valid() {
		return fmt.Errorf("unknown mode %q; use precopy, postcopy, hybrid or local", o.Mode)
	}
	if o.Mode.AfterCommit() {
		o.Streams = max(o.Streams, 2) // the main connection carries no pages then
	}
	if o.Streams < 1 || o.Streams >= wire.MaxStreams {
		return fmt.Errorf("%d streams: choose 1 to %d", o.Streams, wire.MaxStreams-1)
	}
	setDefault(&o.Rule.MaxDowntime, DefaultMaxDowntime)
	setDefault(&o.Rule.MaxRounds, DefaultMaxRounds)
	setDefault(&o.Rule.StallRounds, DefaultStallRounds)
	setDefault(&o.Timeout, DefaultTimeout)
	setDefault(&o.PeerTimeout, DefaultPeerTimeout)
	setDefault(&o.ResolveTimeout, DefaultResolveTimeout)
	if o.Log == nil {
		o.Log = logrus.StandardLogger()
	}
	if o.hooks.dial == nil {
		o.hooks.dial = to.dial
	}
	o.hooks.dial = o.secured(to, o.hooks.dial)
	return o.hooks.complete()
}

func (h *hooks) complete() error {
	if h.clock == nil {
		h.clock = hostClock{}
	}
	if h.liveness == nil {
		h.liveness = identity.Host{}
	}
	if h.plan == nil {
		plan, err := inject.FromEnv()
		if err != nil {
			return err
		}
		h.plan = plan
	}
	if h.self == nil {
		self, err := identity.Self()
		if err != nil {
			return err
		}
		h.self = &self
	}
	return nil
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
