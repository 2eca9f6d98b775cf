package main

import (
	"sync"
	"sync/atomic"
	"time"
)

// blockLines is how many lines a worker checks between two clock readings.
const blockLines = 256

// maxReports bounds the errors that are printed; all are counted.
const maxReports = 20

// checker is the work: areas and clocks, shared by its workers.
type checker struct {
	clocks  *clocks
	print   func(text string) // one line, without memcheck's prefix
	stripes [][]*area         // one list a worker
	rounds  []atomic.Uint64   // finished rounds of each worker
	errors  atomic.Uint64
	stop    atomic.Bool
	rest    time.Duration // of each worker between rounds; 0: it uses a whole CPU
}

// newChecker shares mib MiB of churn, and a quarter of that of still and of
// zero, among workers.
func newChecker(workers, mib int, c *clocks, print func(string)) *checker {
	k := &checker{clocks: c, print: print, rounds: make([]atomic.Uint64, workers)}
	churnLines := mib << 20 / (lineWords * 8) / workers
	quietLines := churnLines / 4
	for w := range workers {
		k.stripes = append(k.stripes, []*area{
			newArea(churn, uint64(w*churnLines), churnLines),
			newArea(still, uint64(w*quietLines), quietLines),
			newArea(zero, uint64(w*quietLines), quietLines),
		})
	}
	return k
}

// run works until stop is set.
func (k *checker) run() {
	var wg sync.WaitGroup
	for w := range k.stripes {
		wg.Go(func() {
			var previous int64
			for !k.stop.Load() {
				previous = k.round(w, previous)
				time.Sleep(k.rest)
			}
		})
	}
	wg.Wait()
}

// round checks every line of worker w's stripes once.
func (k *checker) round(w int, previous int64) int64 {
	for _, a := range k.stripes[w] {
		for from := 0; from < a.lines(); from += blockLines {
			a.check(from, min(from+blockLines, a.lines()), k.report)
			previous = k.clocks.observe(previous, k.report)
		}
		a.endRound()
	}
	k.rounds[w].Add(1)
	return previous
}

// finished is the number of rounds that every worker has done.
func (k *checker) finished() uint64 {
	least := k.rounds[0].Load()
	for w := range k.rounds {
		least = min(least, k.rounds[w].Load())
	}
	return least
}

func (k *checker) report(text string) {
	if k.errors.Add(1) <= maxReports {
		k.print("error " + text)
	}
}
