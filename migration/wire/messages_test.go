package wire

import (
	"encoding/json"
	"errors"
	"slices"
	"testing"
)

// TestCompleteBuckets: what a peer says of its latencies is bounded and in order.
func TestCompleteBuckets(t *testing.T) {
	decode := func(buckets []FaultBucket) error {
		payload, err := json.Marshal(Complete{Faults: Faults{Buckets: buckets}})
		if err != nil {
			t.Fatal(err)
		}
		_, err = Decode[Complete](Frame{Type: TypeComplete, Payload: payload})
		return err
	}
	many := make([]FaultBucket, MaxFaultBuckets)
	for i := range many {
		many[i] = FaultBucket{UpToUS: float64(i + 1), Count: 1}
	}
	for _, good := range [][]FaultBucket{nil, {{1, 1}, {2, 5}}, many} {
		if err := decode(good); err != nil {
			t.Errorf("%d buckets: %v", len(good), err)
		}
	}
	more := append(slices.Clone(many), FaultBucket{UpToUS: 1000, Count: 1})
	for _, bad := range [][]FaultBucket{{{0, 1}}, {{1, 0}}, {{2, 1}, {2, 1}}, {{2, 1}, {1, 1}}, more} {
		if err := decode(bad); !errors.Is(err, ErrProtocol) {
			t.Errorf("%d buckets: %v", len(bad), err)
		}
	}
}

// TestHelloGeneration: the next generation is one more than a peer's, and must not begin from 0.
func TestHelloGeneration(t *testing.T) {
	for generation, good := range map[uint64]bool{0: false, 1: true, 1<<62 - 1: true, 1 << 62: false, ^uint64(0): false} {
		h := Hello{Purpose: PurposeMigrate, Mode: ModePrecopy, MachineID: "m", Generation: generation}
		if err := h.Check(); (err == nil) != good {
			t.Errorf("generation %d: %v", generation, err)
		}
	}
}
