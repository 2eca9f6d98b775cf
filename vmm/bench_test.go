package vmm

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"
)

// BenchmarkMove is a machine's part of the downtime of a migration: save, restore into a machine that was
// just built, resume; and the pause before it. Medians by phase; the time of an iteration has the building in it.
func BenchmarkMove(b *testing.B) {
	for _, cpus := range []int{1, 2, 4, 8} {
		b.Run(fmt.Sprintf("vcpus=%d", cpus), func(b *testing.B) {
			m, _ := dirtyMachine(b, cpus, "pages=64 lines=1 rate=0", false)
			description, err := m.Description()
			if err != nil {
				b.Fatal(err)
			}
			us := map[string][]float64{}
			for b.Loop() {
				clone, err := NewFromDescription(description, Config{})
				if err != nil {
					b.Fatal(err)
				}
				var sealed []byte
				var errs []error
				phase := func(name string, f func() error) {
					began := time.Now()
					errs = append(errs, f())
					us[name] = append(us[name], float64(time.Since(began).Nanoseconds())/1e3)
				}
				phase("pause", m.Pause)
				phase("save", func() (err error) { sealed, err = m.Save(true); return err })
				phase("restore", func() error { _, err := clone.Restore(sealed); return err })
				copyMemory(b, clone.Memory(), m.Memory())
				phase("resume", clone.Resume)
				if err := errors.Join(append(errs, clone.Close(), m.Resume())...); err != nil {
					b.Fatal(err)
				}
			}
			for name, list := range us {
				slices.Sort(list)
				b.ReportMetric(list[len(list)/2], "µs-"+name)
			}
		})
	}
}
