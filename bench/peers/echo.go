// An echo as it is written in Go: a goroutine for each connection, Read into a buffer of its own, Write.
package main

import (
	"flag"
	"fmt"
	"net"
	"os"
)

func main() {
	size := flag.Int("buffer", 4096, "bytes of each connection's buffer")
	flag.Parse()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Fprintf(os.Stderr, "listening on %s\n", listener.Addr())
	for {
		conn, err := listener.Accept()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		go echo(conn, *size)
	}
}

// What goes wrong on a connection ends it, and concerns nobody else.
func echo(conn net.Conn, size int) {
	defer conn.Close()
	buffer := make([]byte, size)
	for {
		count, err := conn.Read(buffer)
		if err != nil {
			return
		}
		if _, err := conn.Write(buffer[:count]); err != nil {
			return
		}
	}
}
