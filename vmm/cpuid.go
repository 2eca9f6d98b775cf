package vmm

import (
	"fmt"
	"math/bits"
	"slices"

	"github.com/fineline-vmm/fineline/vmm/kvm"
)

// CPUModel chooses the CPUID that a guest sees.
type CPUModel string

const (
	// CPUHost passes on all that KVM supports on this host.
	CPUHost CPUModel = "host"
	// CPUBaseline keeps x86-64-v2 and hides the rest, so that a guest can move
	// between different hosts of one vendor.
	CPUBaseline CPUModel = "baseline"
)

func (m CPUModel) validate() error {
	if m != CPUHost && m != CPUBaseline {
		return fmt.Errorf("%w: CPU model %.40q: choose %s or %s", ErrConfig, m, CPUHost, CPUBaseline)
	}
	return nil
}

// register is one of the four outputs of a CPUID leaf.
type register int

const (
	eax register = iota
	ebx
	ecx
	edx
)

func (r register) String() string { return [...]string{"EAX", "EBX", "ECX", "EDX"}[r] }

func (r register) of(e *kvm.CPUIDEntry) *uint32 {
	return [...]*uint32{&e.EAX, &e.EBX, &e.ECX, &e.EDX}[r]
}

// featureWord is a register of a leaf whose bits are features: a destination
// must have each bit that the guest has seen.
type featureWord struct {
	function, index uint32
	reg             register
	// baseline has the bits that CPUBaseline keeps (Intel SDM vol. 2A, CPUID;
	// AMD APM vol. 3, appendix E).
	baseline uint32
}

// The x86-64-v2 level of the psABI: SSE3, SSSE3, SSE4.1, SSE4.2, CMPXCHG16B,
// POPCNT, LAHF; and what every 64-bit kernel expects of a PC.
var featureWords = []featureWord{
	{1, 0, ecx, bitsOf(0, 9, 13, 19, 20, 21, 23, 24, 31)}, // SSE3 SSSE3 CX16 SSE4.1 SSE4.2 x2APIC POPCNT TSC-deadline hypervisor
	{1, 0, edx, bitsOf(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 16, 17, 19, 23, 24, 25, 26)},
	{6, 0, eax, bitsOf(2)}, // ARAT: the APIC timer goes on in deep sleep
	{7, 0, ebx, 0},
	{7, 0, ecx, 0},
	{7, 0, edx, 0},
	{7, 1, eax, 0},
	{7, 1, ebx, 0},
	{7, 1, ecx, 0},
	{7, 1, edx, 0},
	{7, 2, edx, 0},   // more speculation controls
	{0xd, 0, eax, 0}, // no XSAVE in the baseline
	{0xd, 1, eax, 0},
	{0x8000_0001, 0, ecx, bitsOf(0)}, // LAHF in long mode
	{0x8000_0001, 0, edx, bitsOf(11, 20, 26, 27, 29)}, // SYSCALL NX 1-GiB-pages RDTSCP long mode
	{0x8000_0007, 0, edx, bitsOf(8)},                  // invariant TSC
	{0x8000_0008, 0, ebx, 0},                          // speculation controls of AMD
	{0x8000_0021, 0, eax, 0},                          // more of them
	{0x8000_0021, 0, ecx, 0},
	{0x4000_0001, 0, eax, bitsOf(0, 1, 3, 5, 6, 24)}, // kvmclock, clocksource2, steal time, stable clock
}

// exactLeaves count and size what a CPU has, where more is not a superset: a guest that
// saw one of them needs a host with the same. The baseline leaves them out.
var exactLeaves = map[uint32]string{
	0xa:         "performance counters",
	0x12:        "SGX",
	0x14:        "processor trace",
	0x1c:        "last branch records",
	0x1d:        "AMX tiles",
	0x1e:        "AMX multiplication",
	0x23:        "more performance counters",
	0x24:        "AVX10",
	0x8000_0022: "performance counters of AMD",
}

func bitsOf(positions ...int) uint32 {
	var v uint32
	for _, p := range positions {
		v |= 1 << p
	}
	return v
}

// filter makes the guest's CPUID out of what KVM supports here.
func (m CPUModel) filter(supported []kvm.CPUIDEntry) []kvm.CPUIDEntry {
	out := slices.Clone(supported)
	for i := range out {
		// The in-kernel LAPIC has these whether or not KVM lists them.
		if out[i].Function == 1 {
			out[i].ECX |= bitsOf(21, 24, 31) // x2APIC, TSC deadline, hypervisor
		}
	}
	if m == CPUHost {
		return out
	}
	for _, w := range featureWords {
		if e := find(out, w.function, w.index); e != nil {
			*w.reg.of(e) &= w.baseline
		}
	}
	return slices.DeleteFunc(out, func(e kvm.CPUIDEntry) bool {
		_, exact := exactLeaves[e.Function]
		return exact || e.Function == 0xd // 0xd describes XSAVE, which the baseline hides
	})
}

func find(entries []kvm.CPUIDEntry, function, index uint32) *kvm.CPUIDEntry {
	for i := range entries {
		if entries[i].Function == function && entries[i].Index == index {
			return &entries[i]
		}
	}
	return nil
}

// perCPU fills in what differs from one vCPU to the next: its APIC id and the
// topology of one socket with count cores of one thread.
func perCPU(common []kvm.CPUIDEntry, id, count int) []kvm.CPUIDEntry {
	const (
		levelThread = 1 << 8 // leaf 0xb ECX[15:8], Intel SDM vol. 2A
		levelCore   = 2 << 8
	)
	apicID, cpus := uint32(id), uint32(count)
	idBits := uint32(bits.Len32(cpus - 1))
	out := slices.DeleteFunc(slices.Clone(common), func(e kvm.CPUIDEntry) bool {
		return e.Function == 0xb || e.Function == 0x1f
	})
	for i := range out {
		e := &out[i]
		switch e.Function {
		case 1:
			e.EBX = e.EBX&0xffff | cpus<<16 | apicID<<24
			if cpus > 1 {
				e.EDX |= bitsOf(28) // HTT: EBX[23:16] is valid
			}
		case 4: // cores a package and threads sharing the cache, each minus one
			e.EAX = e.EAX&^0xffff_c000 | min(cpus-1, 0x3f)<<26 // a field of 6 bits
		case 0x8000_0008:
			e.ECX = e.ECX&^0xf0ff | idBits<<12 | (cpus-1)&0xff // MaxCPUs fit
		case 0x8000_001e:
			e.EAX, e.EBX, e.ECX = apicID, e.EBX&^0xffff|apicID&0xff, 0
		}
	}
	if max := find(out, 0, 0); max != nil && max.EAX >= 0xb {
		out = append(out,
			kvm.CPUIDEntry{Function: 0xb, Index: 0, Flags: kvm.CPUIDSignificantIndex, EAX: 0, EBX: 1, ECX: 0 | levelThread, EDX: apicID},
			kvm.CPUIDEntry{Function: 0xb, Index: 1, Flags: kvm.CPUIDSignificantIndex, EAX: idBits, EBX: cpus, ECX: 1 | levelCore, EDX: apicID})
	}
	return out
}

// cpuidMissing names what a guest has seen and this host lacks; empty if nothing.
func cpuidMissing(guest, host []kvm.CPUIDEntry) []string {
	var missing []string
	vendor := func(e *kvm.CPUIDEntry) [3]uint32 { return [3]uint32{e.EBX, e.EDX, e.ECX} }
	g, h := find(guest, 0, 0), find(host, 0, 0)
	if g == nil || h == nil {
		return []string{"CPUID leaf 0 (the vendor)"}
	}
	if vendor(g) != vendor(h) {
		missing = append(missing, "a CPU of the same vendor")
	}
	missing = append(missing, addressBitsMissing(guest, host)...)
	for _, g := range guest {
		what, exact := exactLeaves[g.Function]
		if !exact || g.EAX|g.EBX|g.ECX|g.EDX == 0 {
			continue
		}
		if h := find(host, g.Function, g.Index); h == nil || *h != g {
			missing = append(missing, fmt.Sprintf("CPUID leaf %#x (%s) as it is there", g.Function, what))
		}
	}
	for _, w := range featureWords {
		g, h := find(guest, w.function, w.index), find(host, w.function, w.index)
		if g == nil {
			continue
		}
		lacks := *w.reg.of(g)
		if h != nil {
			lacks &^= *w.reg.of(h)
		}
		if lacks != 0 {
			missing = append(missing, fmt.Sprintf("CPUID leaf %#x.%d %s bits %#x", w.function, w.index, w.reg, lacks))
		}
	}
	return missing
}

// addressBitsMissing compares how wide addresses are: leaf 0x80000008 EAX, physical in
// bits 7:0 and linear in bits 15:8. A page table that uses a bit which the host reserves
// faults.
func addressBitsMissing(guest, host []kvm.CPUIDEntry) []string {
	const leaf = 0x8000_0008
	g, h := find(guest, leaf, 0), find(host, leaf, 0)
	if g == nil {
		return nil
	}
	if h == nil {
		h = &kvm.CPUIDEntry{}
	}
	var missing []string
	for i, kind := range []string{"physical", "linear"} {
		if wants, has := g.EAX>>(8*i)&0xff, h.EAX>>(8*i)&0xff; wants > has {
			missing = append(missing, fmt.Sprintf("%s addresses of %d bits (here %d)", kind, wants, has))
		}
	}
	return missing
}
