// Command redisload writes to a Redis server in the Linux guest: it sets keys in rising or in random order,
// with values of one size whose bytes change at each round, and says how many it has set.
//
// It stands in for redis-benchmark, whose values stay the same, so that a tracker which compares bytes would see
// only what the server writes for itself. It speaks RESP (the Redis serialization protocol, version 2)
// in pipelines, since inside an emulated machine a round trip costs milliseconds.
package main
