package vmmtest

import (
	"context"
	"fmt"
	"strings"
	"sync"
)

// SerialLog collects what a guest says and lets tests wait for it. The zero value is empty and
// ready. For any goroutine.
type SerialLog struct {
	mu      sync.Mutex
	text    strings.Builder
	changed chan struct{} // closed by what is said next; nil: nobody waits
}

func (l *SerialLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text.Write(p)
	if l.changed != nil {
		close(l.changed)
		l.changed = nil
	}
	return len(p), nil
}

// String is all that was said.
func (l *SerialLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// Await returns all that was said: once enough is content with it, or with an error when ctx has ended.
func (l *SerialLog) Await(ctx context.Context, enough func(text string) bool) (string, error) {
	for {
		text, changed := l.look()
		if enough(text) {
			return text, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return text, fmt.Errorf("the guest says %q: %w", text, context.Cause(ctx))
		}
	}
}

// look returns all that was said, and what ends when there is more.
func (l *SerialLog) look() (text string, changed <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.changed == nil {
		l.changed = make(chan struct{})
	}
	return l.text.String(), l.changed
}
