// Leaks connections through main -> handleOrder -> getClient -> redigo.
package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/gomodule/redigo/redis"
)

var kept []redis.Conn

//go:noinline
func getClient(address string) redis.Conn {
	client, err := redis.Dial("tcp", address)
	if err != nil {
		panic(err)
	}
	return client
}

func handleOrder(address string) {
	client := getClient(address)
	if _, err := client.Do("PING"); err != nil {
		panic(err)
	}
	kept = append(kept, client)
}

func main() {
	address := os.Args[1] + ":" + os.Args[2]
	orders, err := strconv.Atoi(os.Args[3])
	if err != nil {
		panic(err)
	}
	fmt.Println("up")
	input := bufio.NewReader(os.Stdin)
	input.ReadString('\n')
	for ; orders > 0; orders-- {
		handleOrder(address)
	}
	fmt.Println("ready")
	io.Copy(io.Discard, input)
}
