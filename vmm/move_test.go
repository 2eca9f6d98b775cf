package vmm

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"
)

// BenchmarkMove is a machine's part of the downtime of a migration: pause, save, restore into a
// machine that was just built, resume. Medians, in µs by phase.
func BenchmarkMove(b *testing.B) {
	for _, cpus := range []int{1, 2, 4, 8} {
		b.Run(fmt.Sprintf("vcpus=%d", cpus), func(b *testing.B) {
			var pause, save, restore, resume, total, size []float64
			m, _ := dirtyMachine(b, cpus, "pages=64 lines=1 rate=0", false)
			description, err := m.Description()
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				b.StopTimer()
				clone, err := NewFromDescription(description, Config{})
				if err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
				at := []time.Time{time.Now()}
				lap := func() { at = append(at, time.Now()) }
				err = m.Pause()
				lap()
				sealed, saveErr := m.Save(true)
				lap()
				_, restoreErr := clone.Restore(sealed)
				lap()
				b.StopTimer()
				copyMemory(b, clone.Memory(), m.Memory())
				b.StartTimer()
				at2 := time.Now()
				resumeErr := clone.Resume()
				end := time.Now()
				b.StopTimer()
				if err := errors.Join(err, saveErr, restoreErr, resumeErr, clone.Close(), m.Resume()); err != nil {
					b.Fatal(err)
				}
				us := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }
				pause = append(pause, us(at[1].Sub(at[0])))
				save = append(save, us(at[2].Sub(at[1])))
				restore = append(restore, us(at[3].Sub(at[2])))
				resume = append(resume, us(end.Sub(at2)))
				total = append(total, us(at[3].Sub(at[1])+end.Sub(at2)))
				size = append(size, float64(len(sealed)))
				b.StartTimer()
			}
			for _, p := range []struct {
				name string
				list []float64
			}{{"µs-pause", pause}, {"µs-save", save}, {"µs-restore", restore}, {"µs-resume", resume}, {"µs-down", total}, {"bytes", size}} {
				slices.Sort(p.list)
				b.ReportMetric(p.list[len(p.list)/2], p.name)
			}
		})
	}
}
