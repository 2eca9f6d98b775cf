package kvm

import (
	"fmt"
	"testing"

	"github.com/fineline-vmm/fineline/memory"
)

// The floor under every exit: nothing but KVM_RUN and the kernel's own work.
func BenchmarkBareRun(b *testing.B) {
	for _, bench := range []struct {
		name string
		code []byte
	}{
		{"port", cat(movEDX(0x80), []byte{0xee, 0xeb, 0xfd})},                  // 1: out %al,%dx; jmp 1b
		{"mmio", []byte{0xbb, 0x00, 0x00, 0x00, 0x20, 0x89, 0x03, 0xeb, 0xfc}}, // mov $0x20000000,%ebx; 1: mov %eax,(%rbx); jmp 1b
	} {
		b.Run(bench.name, func(b *testing.B) {
			m := newTestVM(b, VMOptions{}, 1)
			c := m.cpus[0]
			m.load(bench.code)
			m.enter(c, 3)
			b.ReportAllocs()
			for b.Loop() {
				if e := m.next(c); e.Reason != ExitIO && e.Reason != ExitMMIO {
					b.Fatal(e)
				}
			}
		})
	}
}

func BenchmarkState(b *testing.B) {
	m := newTestVM(b, VMOptions{}, 1)
	for b.Loop() {
		if _, err := m.cpus[0].State(); err != nil {
			b.Fatal(err)
		}
	}
}

// What a paused guest waits for: its dirty pages taken and re-armed, or only looked at.
func BenchmarkCollect(b *testing.B) {
	for _, n := range []int{0, 64, lowPages - dataAddr/memory.PageSize} {
		m := newStorer(b, VMOptions{})
		src := m.vm.DirtySource(m.mem)
		must(b, src.Start())
		for name, collect := range map[string]func(*memory.PageSet) error{
			"collect": src.Collect, "peek": src.(memory.Peeker).Peek,
		} {
			b.Run(fmt.Sprintf("%s/pages=%d", name, n), func(b *testing.B) {
				set := m.mem.NewPageSet()
				for b.Loop() {
					b.StopTimer()
					m.write(m.cpus[0], pages(dataAddr, n))
					b.StartTimer()
					must(b, collect(set))
				}
			})
		}
	}
}
