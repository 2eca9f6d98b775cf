// Package protocol is what a program and the tracking daemon say to each other over a unix socket: JSON
// objects, one a line, in both directions.
//
// # Sequence
//
// The client sends a request and waits for the response with the same id. There is one request under way
// per connection.
//
//	{"id":1,"op":"open","mode":0,"count_bytes":true}     -> {"id":1,"session":1}
//	{"id":2,"op":"add","session":1,"ranges":[...]}       -> {"id":2}
//	{"id":3,"op":"start","session":1}                    -> {"id":3}
//	{"id":4,"op":"harvest","session":1}                  -> {"id":4,"report":{"pages":[...],"present":9,"more":true}}
//	{"id":5,"op":"more","session":1}                     -> {"id":5,"report":{"pages":[...],"present":9}}
//	{"id":6,"op":"close","session":1}                    -> {"id":6}
//
// A report of many pages comes in parts: "more" asks for the next part as long as the last one said more.
// Another harvest before that is refused. Besides: remove, stop, and list, which only root may ask.
// open with a pid tracks that process, which only root may; without, the process that connected.
//
// # States and errors
//
// Sessions belong to their connection and end with it. A refused request says {"error":{"code","message"}}
// and changes nothing, except where the code is "failed": then the session can only be closed. A line that is not a
// request, or is longer than MaxRequestBytes, ends the connection after an error with id 0.
//
// Addresses and masks are strings of hexadecimal digits, since numbers of 64 bits do not survive JSON
// in many languages.
//
// # Version
//
// An unknown operation is refused with "bad_request" and unknown fields are ignored, so both may be added. A
// change of meaning gets another operation.
package protocol
