package vmm

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"

	"github.com/fineline-vmm/fineline/memory"
	"github.com/fineline-vmm/fineline/vmm/kvm"
)

type runState int

const (
	parked runState = iota
	running
	gone // the thread has ended
)

// vcpu is one virtual processor and the OS thread that owns it.
type vcpu struct {
	id  int
	kvm *kvm.VCPU
	p   *peripherals
	// post reports an exit that concerns the whole machine; it must not block.
	post func(event)

	// unserved counts exits in a row for an instruction that nobody can emulate; see emulate. The thread's,
	// or that of the goroutine for which it is held.
	unserved int
	complain rate.Sometimes

	mu   sync.Mutex
	cond *sync.Cond // signalled on every change of the fields below
	want runState
	is   runState
	// holds keep the vCPU parked whatever is wanted: who holds it needs it still for a moment.
	holds int
	// entries counts how often it left its park for the guest.
	entries uint64
	lent    bool // a call of do uses the KVM vCPU: it stays in its park
	tid     int
	took    time.Duration // processor time of the thread; good when it is gone
}

// newVCPU starts the thread and creates the KVM vCPU on it, parked.
func newVCPU(vm *kvm.VM, id int, p *peripherals, post func(event)) (*vcpu, error) {
	c := &vcpu{id: id, p: p, post: post, want: parked, is: running, complain: rate.Sometimes{First: 3, Interval: time.Second}}
	c.cond = sync.NewCond(&c.mu)
	created := make(chan error)
	go func() {
		// The thread is never unlocked: it dies with the goroutine, and no
		// other goroutine inherits its signal state.
		runtime.LockOSThread()
		var err error
		c.kvm, err = vm.CreateVCPU(id)
		c.tid = unix.Gettid()
		created <- err
		if err == nil {
			c.loop()
		}
	}()
	if err := <-created; err != nil {
		return nil, fmt.Errorf("vCPU %d: %w", id, err)
	}
	return c, nil
}

func (c *vcpu) loop() {
	for c.park() {
		c.runGuest()
	}
	_ = c.kvm.Close()
	c.mu.Lock()
	c.took, _ = cpuClock(unix.CLOCK_THREAD_CPUTIME_ID) // its own, which is always there
	c.is = gone
	c.cond.Broadcast()
	c.mu.Unlock()
}

// park returns when the vCPU is wanted running (true) or gone (false).
func (c *vcpu) park() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.lent || c.want == parked || c.want == running && c.holds > 0 {
		c.is = parked
		c.cond.Broadcast()
		c.cond.Wait()
	}
	if c.want == gone {
		return false
	}
	c.is = running
	c.entries++
	c.cond.Broadcast()
	return true
}

// runGuest runs the guest until the vCPU is not wanted running any more.
func (c *vcpu) runGuest() {
	// A guest that uses kvmclock learns that it stood still: its watchdogs must not take the gap for a
	// lockup.
	if err := c.kvm.NotifyPaused(); err != nil {
		c.stopSelf(event{err: fmt.Errorf("vCPU %d: %w", c.id, err)})
		return
	}
	for {
		err := c.kvm.Run()
		c.p.mem.Returned(c.tid) // also without an error: KVM may have given up a wait, and had an exit to tell
		switch {
		case err == nil:
			if !c.handle(c.kvm.Exit()) {
				return
			}
		case errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN):
			// EAGAIN: an AP that waits for its SIPI was woken by something else.
			c.kvm.SetImmediateExit(false) // before the wish is read, see doc.go
			c.mu.Lock()
			leave := c.want != running || c.holds > 0
			c.mu.Unlock()
			if leave {
				return
			}
		default:
			c.stopSelf(event{err: fmt.Errorf("vCPU %d: %w", c.id, err)})
			return
		}
	}
}

// handle answers one exit and reports whether the guest may be entered again.
func (c *vcpu) handle(e *kvm.Exit) bool {
	n, code, err := handleExit(e, c.p)
	if errors.Is(err, ErrEmulation) {
		n, code, err = c.emulate(e, err)
	} else {
		c.unserved = 0
	}
	switch {
	case err != nil:
		c.stopSelf(event{err: c.describe(err)})
		return false
	case n == goOn:
		return true
	case n == leave:
		return false
	case n == ringFull:
		if err := c.kvm.HarvestRing(); err != nil {
			c.stopSelf(event{err: fmt.Errorf("vCPU %d: %w", c.id, err)})
			return false
		}
		return true
	default:
		c.completeAccess()
		c.stopSelf(event{next: n, code: code})
		return false
	}
}

// completeAccess lets the kernel finish the access that was just answered, so
// that RIP is past it, without running a further instruction. An access of 16
// bytes comes in two parts, hence the loop.
func (c *vcpu) completeAccess() {
	c.kvm.SetImmediateExit(true)
	defer c.kvm.SetImmediateExit(false)
	for c.kvm.Run() == nil {
		if _, _, err := handleExit(c.kvm.Exit(), c.p); err != nil {
			return // the machine stops anyway, for the first reason
		}
	}
}

func (c *vcpu) describe(err error) error {
	regs, regsErr := c.kvm.Regs()
	if regsErr != nil {
		return fmt.Errorf("vCPU %d: %w", c.id, err)
	}
	return fmt.Errorf("vCPU %d at RIP %#x: %w", c.id, regs.RIP, err)
}

// stopSelf parks this vCPU by its own will and tells the supervisor why.
func (c *vcpu) stopSelf(e event) {
	c.mu.Lock()
	if c.want == running {
		c.want = parked
	}
	c.mu.Unlock()
	c.post(e)
}

// setWant changes what the vCPU should be doing and kicks it out of the guest.
func (c *vcpu) setWant(w runState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.is == gone || c.want == gone {
		return
	}
	c.want = w
	c.cond.Broadcast()
	if w == gone && c.is == running || w == parked && c.is == running && !c.surelyWaits() {
		c.kick()
	}
}

// surelyWaits reports whether the vCPU waits for a missing page. Then it need not be kicked to be still, and had better not:
// a wait inside an access of the kernel's own to the guest's memory goes on, but with a signal pending it spins. KVM has
// threads of the kernel wait for some pages (asynchronous page faults), whose numbers can be taken for ours only where this
// process is in a PID namespace of its own.
func (c *vcpu) surelyWaits() bool { return inFirstPIDNamespace() && c.p.mem.Waits(c.tid) }

// inFirstPIDNamespace: its inode number is fixed (PROC_PID_INIT_INO, linux/proc_ns.h).
var inFirstPIDNamespace = sync.OnceValue(func() bool {
	name, err := os.Readlink("/proc/self/ns/pid")
	return err == nil && name == "pid:[4026531836]"
})

// hold has the vCPU park, if it runs, and stay so until unhold. Holds add up. await says when it is parked.
func (c *vcpu) hold() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.holds++
	if c.is == running {
		c.kick()
	}
}

func (c *vcpu) entered() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.entries
}

func (c *vcpu) wanted() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.want == running
}

func (c *vcpu) unhold() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.holds--
	c.cond.Broadcast()
}

// kick makes KVM_RUN return, whether it is being entered or under way.
// Preconditions: c.mu held, c.want or c.holds already set.
func (c *vcpu) kick() {
	c.kvm.SetImmediateExit(true)
	// ESRCH can't be: the thread ends only after is = gone.
	_ = unix.Tgkill(unix.Getpid(), c.tid, unix.SIGURG)
}

// await returns when the vCPU is in the state s, or gone.
func (c *vcpu) await(s runState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.is != s && c.is != gone {
		c.cond.Wait()
	}
}

// awaitStill returns when the vCPU is parked, waits for a missing page, or is gone. Only while arrivals are held does
// it stay so in the second case.
func (c *vcpu) awaitStill() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.is == running && !c.p.mem.Waits(c.tid) {
		c.cond.Wait()
	}
}

// stuckTime is how long a vCPU that was kicked may take out of a wait for a missing page that can be interrupted. It is
// known to be one that cannot only by this.
const stuckTime = 100 * time.Millisecond

// awaitParked returns when the vCPU, of which no running is wanted, is parked or gone. When it waits for a page that cannot come before the machine is resumed,
// and cannot be interrupted, the error wraps memory.ErrMissing.
func (c *vcpu) awaitParked() error {
	start := time.Now() // before the timer, which must find the time over
	timeout := time.AfterFunc(stuckTime, c.wakeWaiters)
	defer timeout.Stop()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.is == running {
		c.kick()
	}
	for c.is == running {
		if time.Since(start) >= stuckTime && c.p.mem.Held() && c.p.mem.Waits(c.tid) {
			return fmt.Errorf("vCPU %d is within an instruction that waits: %w", c.id, memory.ErrMissing)
		}
		c.cond.Wait()
	}
	return nil
}

// wakeWaiters has who waits for a state of the vCPU look again.
func (c *vcpu) wakeWaiters() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cond.Broadcast()
}

var errVCPUGone = errors.New("the machine has stopped")

// do calls f with the KVM vCPU, on the caller's thread: to wake the vCPU's own and to be woken takes as long as
// most of what is done so. Preconditions: the vCPU is parked, and stays wanted so or held until do
// returns.
func (c *vcpu) do(f func(*kvm.VCPU) error) error {
	if !c.lend() {
		return errVCPUGone
	}
	defer c.takeBack()
	return f(c.kvm)
}

func (c *vcpu) lend() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.is != gone && c.want != gone && (c.lent || c.is != parked) {
		c.cond.Wait()
	}
	if c.is == gone || c.want == gone {
		return false
	}
	c.lent = true
	return true
}

func (c *vcpu) takeBack() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lent = false
	c.cond.Broadcast()
}
