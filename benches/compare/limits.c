// What this machine charges at least: a bare system call, a hop over loopback TCP, an empty epoll_wait, a copy. cc -O2 limits.c -o limits
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/epoll.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
static double now(void){struct timespec t;clock_gettime(CLOCK_PROCESS_CPUTIME_ID,&t);return t.tv_sec*1e9+t.tv_nsec;}
static void pair(int*a,int*b){int l=socket(AF_INET,SOCK_STREAM,0),o=1;struct sockaddr_in s={.sin_family=AF_INET,.sin_addr.s_addr=htonl(0x7f000001)};socklen_t n=sizeof s;
 bind(l,(void*)&s,n);listen(l,1);getsockname(l,(void*)&s,&n);*a=socket(AF_INET,SOCK_STREAM,0);connect(*a,(void*)&s,n);*b=accept(l,0,0);close(l);
 setsockopt(*a,IPPROTO_TCP,TCP_NODELAY,&o,4);setsockopt(*b,IPPROTO_TCP,TCP_NODELAY,&o,4);}
int main(void){
 int N=2000000;double t=now();for(int i=0;i<N;i++)syscall(SYS_getppid);printf("getppid            %7.0f ns\n",(now()-t)/N);
 int a,b;pair(&a,&b);static char buf[65536];int sz[]={128,1200,16384};
 for(int k=0;k<3;k++){N=300000;double ts=0,tr=0;for(int i=0;i<N;i++){double x=now();send(a,buf,sz[k],0);double y=now();int g=0;while(g<sz[k]){int r=recv(b,buf,sizeof buf,0);if(r<=0)exit(1);g+=r;}double z=now();ts+=y-x;tr+=z-y;}
  double o=now();for(int i=0;i<N;i++)now();o=(now()-o)/N;printf("tcp lo %5d B: send %5.0f ns  recv %5.0f ns (clock overhead %3.0f ns removed)\n",sz[k],ts/N-o,tr/N-o,o);}
 int e=epoll_create1(0);struct epoll_event ev={.events=EPOLLIN},out;epoll_ctl(e,EPOLL_CTL_ADD,b,&ev);N=1000000;t=now();for(int i=0;i<N;i++)epoll_wait(e,&out,1,0);printf("epoll_wait (empty)  %6.0f ns\n",(now()-t)/N);
 t=now();for(int i=0;i<N;i++)recv(b,buf,10,MSG_DONTWAIT);printf("recv EAGAIN         %6.0f ns\n",(now()-t)/N);
 size_t m[]={1024,65536,64<<20};for(int k=0;k<3;k++){char*p=malloc(m[k]),*q=malloc(m[k]);memset(p,1,m[k]);memset(q,2,m[k]);long it=(8L<<30)/m[k];t=now();for(long i=0;i<it;i++){memcpy(q,p,m[k]);__asm__ volatile(""::"r"(q):"memory");}printf("memcpy %9zu B   %6.1f GB/s\n",m[k],it*(double)m[k]/(now()-t));free(p);free(q);}
 N=5000000;t=now();for(int i=0;i<N;i++){void*p=malloc(1024);__asm__ volatile(""::"r"(p):"memory");free(p);}printf("malloc+free 1 KB    %6.1f ns\n",(now()-t)/N);
 return 0;}
