package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
)

// errFeedClosed ends a subscriber whose server shuts down.
var errFeedClosed = errors.New("the server shuts down")

// feed carries one migration's progress to any number of readers. It keeps the latest event
// only: a reader that is late or slow skips to it and never holds the writer up; each event is
// a full picture, so nothing is lost by that. The final event stays for late joiners.
type feed struct {
	mu      sync.Mutex
	line    []byte // the latest event as JSON, without newline; nil before the first
	seq     uint64 // counts events; a reader remembers what it has seen
	final   bool
	changed chan struct{} // closed and replaced with each event
	ended   chan struct{} // closed with the final event
	told    chan struct{} // closed when a reader has been given the final event
	left    chan struct{} // closed when the guest has left and its memory follows
	once    sync.Once     // for told
	leaving sync.Once     // for left
}

func newFeed() *feed {
	return &feed{changed: make(chan struct{}), ended: make(chan struct{}), told: make(chan struct{}), left: make(chan struct{})}
}

// publish replaces the latest event. After the final one it does nothing: the first end counts.
func (f *feed) publish(ev MigrationEvent) {
	line, err := json.Marshal(ev)
	if err != nil { // Data was not JSON: say so in its place
		line, _ = json.Marshal(MigrationEvent{Final: ev.Final, Fault: fmt.Sprintf("encode migration event: %v", err)})
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.final {
		return
	}
	f.line, f.final = line, ev.Final
	f.seq++
	close(f.changed)
	f.changed = make(chan struct{})
	if f.final {
		close(f.ended)
	}
}

// finalTold notes that a reader has been given the final event.
func (f *feed) finalTold() { f.once.Do(func() { close(f.told) }) }

func (f *feed) isFinal() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.final
}

// next waits for an event newer than seen. What has been published wins over an end of the
// wait, so a reader gets the final event even while the server shuts down.
func (f *feed) next(ctx context.Context, closing <-chan struct{}, seen uint64) (line []byte, seq uint64, final bool, err error) {
	for {
		f.mu.Lock()
		line, seq, final = f.line, f.seq, f.final
		changed := f.changed
		f.mu.Unlock()
		if seq > seen {
			return line, seq, final, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, seen, false, ctx.Err()
		case <-closing:
			return nil, seen, false, errFeedClosed
		}
	}
}
