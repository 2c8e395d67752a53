// Command proxy is grpc-gateway as anybody would have it from the contract: generated, with its defaults but one, and
// nothing of ours. The REST mirror is compared with it. It prints the address that it serves.
package main

import (
	"context"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	// The details of errors can only be shown by a program that knows their types.
	_ "google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	atlas "atlas.example/gateway/gen/atlas/v1"
	"atlas.example/gateway/gen/echo"
)

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: proxy HOST:PORT")
	}
	conn, err := grpc.NewClient(os.Args[1], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	// Since 2.33 clients cannot send metadata unless they are let.
	mux := runtime.NewServeMux(runtime.WithIncomingHeaderMatcher(runtime.LegacyHeaderMatcher))
	for _, register := range []func(context.Context, *runtime.ServeMux, *grpc.ClientConn) error{
		atlas.RegisterJobServiceHandler,
		atlas.RegisterWorkerServiceHandler,
		echo.RegisterEchoServiceHandler,
	} {
		if err := register(context.Background(), mux, conn); err != nil {
			log.Fatal(err)
		}
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(listener.Addr())
	log.Fatal(http.Serve(listener, mux))
}
