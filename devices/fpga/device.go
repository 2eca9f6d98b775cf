package fpga

import (
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/fineline-vmm/fineline/devices/pci"
	"github.com/fineline-vmm/fineline/memory"
)

// Device is the PCI function. All methods may be called from any goroutine.
type Device struct {
	*pci.Config // identity, BARs, MSI-X

	mem    *memory.Guest
	engine engine
	msix   *pci.MSIX
	logTo  func(error)
	often  rate.Sometimes // for logTo

	wake chan struct{} // capacity 1, a token: there may be work
	quit chan struct{} // closed by Close
	done chan struct{} // closed when the worker has ended

	ctl            sync.Mutex // serialises pause to close; before turn, before mu
	paused, closed bool

	// turn is full while somebody works: the worker for one step, or a pause. Only its holder calls
	// contexts, stores to guest memory, and changes what an entry holds.
	turn chan struct{}

	mu       sync.Mutex // before Config's; never held while guest memory or the engine is used
	regs     registers
	epoch    uint64 // counts resets: what a command of an older one has to say is dropped
	contexts [MaxContexts]*entry
	stale    []*entry    // contexts from before a reset, to be closed before anything else
	busy     bool        // a step is under way
	dropping bool        // it belongs to an older epoch
	held     *Completion // finished, not yet in the ring
	putting  bool        // it is being stored now
	metrics  Metrics
}

// entry is a context of the guest's.
type entry struct {
	Context
	flags          uint32 // of CREATE
	started, armed bool   // ever, now
}

// Options of a Device.
type Options struct {
	// Signal sends an MSI-X message. It is called with locks held and must not call back.
	Signal func(addr uint64, data uint32)
	// Log gets what the host could not do, at a limited rate; nil: nobody wants it.
	Log func(error)
}

// Metrics counts since New. Comparable.
type Metrics struct {
	Commands uint64 `json:"commands"` // taken
	// Statuses counts commands by status, FLFPGA_OK and FLFPGA_ERR_*, those included whose completion a
	// reset dropped.
	Statuses      [statusCount]uint64 `json:"statuses"`
	Records       uint64              `json:"records"` // stored to guest buffers
	Interrupts    uint64              `json:"interrupts"`
	Resets        uint64              `json:"resets"`         // by the guest
	RingErrors    uint64              `json:"ring_errors"`    // times that STATUS_ERROR was set
	BadAccesses   uint64              `json:"bad_accesses"`   // of a size or at an address that no register has
	IgnoredWrites uint64              `json:"ignored_writes"` // to a read-only register, or not at this time
}

// Faults is m without the traffic that is as it should be.
func (m Metrics) Faults() Metrics {
	m.Commands, m.Records, m.Interrupts, m.Resets, m.Statuses[statusOK] = 0, 0, 0, 0, 0
	return m
}

// New makes a disabled device and starts its worker; the caller puts it on a bus by pci.Root.Add and
// closes it, before memory and engine. The error is pci's.
func New[C Context](mem *memory.Guest, e Engine[C], o Options) (*Device, error) {
	d := &Device{
		Config: pci.NewConfig(pci.Identity{
			VendorID: vendorID, DeviceID: deviceID, Class: class,
			SubsystemVendorID: vendorID, SubsystemID: deviceID,
		}),
		mem: mem, engine: newEngine(e), logTo: o.Log,
		often: rate.Sometimes{First: 3, Interval: time.Second},
		wake:  make(chan struct{}, 1), quit: make(chan struct{}), done: make(chan struct{}),
		turn: make(chan struct{}, 1),
	}
	if err := d.AddBAR(0, pci.BAR{Kind: pci.Memory32, SizeBytes: barBytes, Device: bar{d}}); err != nil {
		return nil, err
	}
	var err error
	if d.msix, err = d.AddMSIX(1, 1, o.Signal); err != nil {
		return nil, err
	}
	go d.work()
	return d, nil
}

// WriteConfig implements pci.Function: work that waited for bus mastering goes on.
func (d *Device) WriteConfig(off uint64, p []byte) {
	d.Config.WriteConfig(off, p)
	d.wakeUp()
}

// Metrics returns a copy of the counters.
func (d *Device) Metrics() Metrics {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.metrics
}

// MSIX returns the message interrupts, for their counters.
func (d *Device) MSIX() *pci.MSIX { return d.msix }

// log tells of what the host could not do.
func (d *Device) log(err error) {
	if d.logTo != nil {
		d.often.Do(func() { d.logTo(err) })
	}
}
