package bench

import "github.com/fineline-vmm/fineline/cmd/internal/usage"

// taken is what a process took beside its guest.
type taken struct {
	cpuMS           float64 // outside vCPUs
	peakMiB, ownMiB float64 // ownMiB: beyond guest RAM

	pid        int
	ramBytes   uint64 // of the guest
	vcpus      []string
	guest      uint64 // resident bytes of the guest's RAM, if that is private memory
	memory     usage.Memory
	start, end usage.Times
}

// watch begins to measure a process.
func (t *taken) watch(pid int, ramBytes uint64) (err error) {
	t.pid, t.ramBytes = pid, ramBytes
	if err := t.look(); err != nil {
		return err
	}
	t.start, err = usage.ReadTimes(pid)
	return err
}

// stop ends the measurement, at once: a source of ours ends when the guest is elsewhere.
func (t *taken) stop() (err error) {
	if t.end, err = usage.ReadTimes(t.pid); err != nil {
		return err
	}
	t.memory, err = usage.ReadMemory(t.pid)
	return err
}

// look finds the guest in the process, where it is or has been.
func (t *taken) look() (err error) {
	if t.vcpus, err = usage.VCPUs(t.pid); err != nil {
		return err
	}
	t.guest, err = usage.GuestBytes(t.pid, t.ramBytes)
	return err
}

// figures computes them when the process has been looked at with the guest in it.
func (t *taken) figures() {
	t.cpuMS = milliseconds(usage.Beside(t.vcpus, t.start, t.end))
	private := t.memory.PeakBytes - min(t.memory.PeakBytes, t.memory.SharedBytes)
	t.peakMiB = float64(private+t.memory.MemfdBytes) / mib
	t.ownMiB = float64(private-min(private, t.guest)) / mib
}

// takenByBoth completes the figures of both ends, once the guest has run at the destination.
func (s *sample) takenByBoth() (err error) {
	if err := s.destination.look(); err != nil {
		return err
	}
	// The vCPUs of a destination map memory as they meet it.
	if s.destination.memory, err = usage.ReadMemory(s.destination.pid); err != nil {
		return err
	}
	s.source.figures()
	s.destination.figures()
	return nil
}
