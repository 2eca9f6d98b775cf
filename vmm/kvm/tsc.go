package kvm

import (
	"errors"
	"fmt"

	gokvm "github.com/bobuhiro11/gokvm/kvm"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"
)

// TSC is a vCPU's time stamp counter when it was saved. value = host TSC + offset, at
// the guest's frequency.
type TSC struct {
	KHz    uint64 `json:"khz"`
	Value  uint64 `json:"value"`
	Offset uint64 `json:"offset"`
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

// getTSC reads the counter. Value and offset are read apart, but differ by the
// host's counter alone, so their order does not matter for what Restore needs.
func (c *VCPU) getTSC() (TSC, error) {
	khz, err := gokvm.GetTSCKHz(uintptr(c.fd))
	if err != nil {
		return TSC{}, named("KVM_GET_TSC_KHZ", err)
	}
	offset, err := c.tscOffset()
	if err != nil {
		return TSC{}, err
	}
	values, err := c.readMSRs([]uint32{msrTSC})
	if err != nil {
		return TSC{}, err
	}
	if len(values) != 1 {
		return TSC{}, errors.New("KVM_GET_MSRS: the TSC can't be read")
	}
	return TSC{KHz: khz, Value: values[0].Value, Offset: offset}, nil
}

// setTSC lets the counter go on from its saved value. All vCPUs of the VM are
// shifted by the same number of ticks, so they stay as synchronous as they were.
func (c *VCPU) setTSC(saved TSC) error {
	if err := c.SetTSCFrequency(saved.KHz); err != nil {
		return err
	}
	now, err := c.getTSC()
	if err != nil {
		return err
	}
	wanted := saved.Offset + c.vm.shiftTSC(saved.hostTicks()-now.hostTicks())
	if err := c.setTSCOffset(wanted); err != nil {
		return err
	}
	if now, err = c.getTSC(); err != nil {
		return err
	}
	// Software KVM takes an offset and ignores it: its guests read the host's TSC.
	if now.Offset != wanted && now.Value < saved.Value {
		logrus.WithField("vcpu", c.id).Warnf("the guest's TSC goes back by %d ms: this KVM shows guests the host's own, which is behind", (saved.Value-now.Value)/max(saved.KHz, 1))
	}
	return nil
}

// shiftTSC returns the VM's shift, which is ticks if nobody fixed it before.
func (v *VM) shiftTSC(ticks uint64) uint64 {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.tsc.known {
		v.tsc = tscShift{known: true, ticks: ticks}
	}
	return v.tsc.ticks
}

// SetTSCFrequency makes the guest's counter tick at khz, or says why this host can't
// (ErrTSCFrequency). Restore does it too: who calls it earlier learns of that earlier.
func (c *VCPU) SetTSCFrequency(khz uint64) error {
	host, err := gokvm.GetTSCKHz(uintptr(c.fd))
	if err != nil {
		return named("KVM_GET_TSC_KHZ", err)
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
