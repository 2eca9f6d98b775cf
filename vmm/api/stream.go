package api

import (
	"net/http"
	"time"
)

// lineStream is an answer of JSON lines. A client that does not read is cut off after timeout: what
// it holds up until then is the goroutine of its own request.
type lineStream struct {
	w       http.ResponseWriter
	rc      *http.ResponseController
	timeout time.Duration
}

// openStream lets the client learn that it is connected.
func (s *Server) openStream(w http.ResponseWriter) (*lineStream, error) {
	o := &lineStream{w: w, rc: http.NewResponseController(w), timeout: s.lineTimeout}
	w.Header().Set("Content-Type", "application/x-ndjson")
	setDeadline(o.rc.SetWriteDeadline, time.Now().Add(o.timeout))
	w.WriteHeader(http.StatusOK)
	return o, o.rc.Flush()
}

// write sends one line; it appends the newline.
func (o *lineStream) write(line []byte) error {
	setDeadline(o.rc.SetWriteDeadline, time.Now().Add(o.timeout))
	if _, err := o.w.Write(append(line[:len(line):len(line)], '\n')); err != nil {
		return err
	}
	return o.rc.Flush()
}
