package kvm

import (
	"errors"
	"fmt"
	"slices"

	gokvm "github.com/bobuhiro11/gokvm/kvm"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"
)

// TSC is a vCPU's time stamp counter when it was saved. value = host TSC + offset, at
// the guest's frequency.
type TSC struct {
	KHz    uint64
	Value  uint64
	Offset uint64
}

// hostTicks is what the host's TSC showed when t was read, scaled to the guest's
// frequency.
func (t TSC) hostTicks() uint64 { return t.Value - t.Offset }

// tscShift is what must be added to every saved offset of one VM, modulo 2^64. It
// is fixed by the first vCPU that is restored after VM.Restore.
type tscShift struct {
	known bool
	ticks uint64
}

// toleratedPPM is the frequency difference, in parts per million, up to which KVM
// itself takes two TSCs for equal (its tsc_tolerance_ppm).
const toleratedPPM = 250

// getTSC reads the counter.
func (c *VCPU) getTSC() (TSC, error) {
	values, err := c.readMSRs([]uint32{msrTSC})
	if err != nil {
		return TSC{}, err
	}
	return c.readTSC(values)
}

// readTSC completes the counter's value among MSRs that were just read. Value and offset are
// read apart, but differ by the host's counter alone, so their order does not matter for what Restore
// needs.
func (c *VCPU) readTSC(msrs []MSR) (TSC, error) {
	at := slices.IndexFunc(msrs, func(m MSR) bool { return m.Index == msrTSC })
	if at < 0 {
		return TSC{}, errors.New("KVM_GET_MSRS: the TSC can't be read")
	}
	khz, err := c.tscFrequency()
	if err != nil {
		return TSC{}, err
	}
	offset, err := c.tscOffset()
	return TSC{KHz: khz, Value: msrs[at].Value, Offset: offset}, err
}

// tscFrequency asks once: nobody but SetTSCFrequency changes it.
func (c *VCPU) tscFrequency() (khz uint64, err error) {
	if c.tscKHz == 0 {
		if c.tscKHz, err = gokvm.GetTSCKHz(uintptr(c.fd)); err != nil {
			return 0, named("KVM_GET_TSC_KHZ", err)
		}
	}
	return c.tscKHz, nil
}

// setTSC lets the counter go on from its saved value. All vCPUs of the VM are
// shifted by the same number of ticks, so they stay as synchronous as they were.
func (c *VCPU) setTSC(saved TSC) error {
	if err := c.SetTSCFrequency(saved.KHz); err != nil {
		return err
	}
	first := false
	shift, err := c.vm.shiftTSC(func() (uint64, error) {
		first = true
		now, err := c.getTSC()
		return saved.hostTicks() - now.hostTicks(), err
	})
	if err != nil {
		return err
	}
	if err := c.setTSCOffset(saved.Offset + shift); err != nil || !first {
		return err
	}
	now, err := c.getTSC()
	if err != nil {
		return err
	}
	// Software KVM takes an offset and ignores it: its guests read the host's TSC. What one vCPU
	// sees all do.
	if now.Offset != saved.Offset+shift && now.Value < saved.Value {
		logrus.WithField("vcpu", c.id).Warnf("the guest's TSC goes back by %d ms: this KVM shows guests the host's own, which is behind", (saved.Value-now.Value)/max(saved.KHz, 1))
	}
	return nil
}

// shiftTSC returns the VM's shift, which is what ticks says if nobody fixed it before.
func (v *VM) shiftTSC(ticks func() (uint64, error)) (uint64, error) {
	v.tscMu.Lock()
	defer v.tscMu.Unlock()
	if !v.tsc.known {
		n, err := ticks()
		if err != nil {
			return 0, err
		}
		v.tsc = tscShift{known: true, ticks: n}
	}
	return v.tsc.ticks, nil
}

// SetTSCFrequency makes the guest's counter tick at khz, or says why this host can't
// (ErrTSCFrequency). Restore does it too: who calls it earlier learns of that earlier.
func (c *VCPU) SetTSCFrequency(khz uint64) error {
	host, err := c.tscFrequency()
	if err != nil {
		return err
	}
	if khz == host {
		return nil
	}
	// Without scaling KVM accepts a higher frequency and then lets the counter jump
	// at every entry ("catch up"): not a clock that a guest can live with.
	if c.vm.sys.capability(gokvm.CapTSCControl) == 0 && !withinPPM(khz, host, toleratedPPM) {
		return fmt.Errorf("%w: guest %d kHz, host %d kHz and no TSC scaling", ErrTSCFrequency, khz, host)
	}
	if err := gokvm.SetTSCKHz(uintptr(c.fd), khz); err != nil {
		return fmt.Errorf("%w: KVM_SET_TSC_KHZ %d: %w", ErrTSCFrequency, khz, err)
	}
	c.tscKHz = 0 // KVM may have taken its own for one that is near enough
	return nil
}

func withinPPM(a, b, ppm uint64) bool {
	const million = 1_000_000
	if a > 1<<40 || b > 1<<40 { // from a file: would overflow below
		return false
	}
	return max(a, b)-min(a, b) <= b*ppm/million
}

// NotifyPaused tells a guest that uses kvmclock that it was stopped from outside,
// so that its lockup watchdogs stay quiet. Call it on every vCPU before it runs
// again after a pause, and after Restore: the note is not part of the state.
func (c *VCPU) NotifyPaused() error {
	_, err := ioctl(c.fd, reqKVMClockCtrl, 0)
	if errors.Is(err, unix.EINVAL) { // the guest has no kvmclock: nobody to tell
		return nil
	}
	return err
}
