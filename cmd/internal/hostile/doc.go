// Hostile attacks a `fineline run` of yours, for who wants to watch what that does (package migration/hostile):
//
//	hostile middle FROM TO SEED FRAMES [forge]   a man in the middle between two Unix sockets
//	hostile destination SOCKET NAME              a destination, to which to migrate
//	hostile source SOCKET DESCRIPTION NAME       a source; DESCRIPTION is a file that `destination` wrote
//	hostile list                                 the names
//
// `hostile destination SOCKET "looks and refuses" > FILE` gets a machine's description.
package main
