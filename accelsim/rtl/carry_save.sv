`timescale 1ns / 1ps
// carry_save: ROWS words reduced to fewer of the same sum (modulo 2^BITS) by LEVELS of full adders; combinational.
// docs/rtl.md (Pipeline of a step).
module carry_save #(
    parameter int ROWS   = 3,
    parameter int BITS   = 8,
    parameter int LEVELS = 1,
    parameter int REST   = 2   // rows that LEVELS leave: carry_save_sum's rows_after
) (
    input  logic [ROWS*BITS-1:0] rows,
    output logic [REST*BITS-1:0] rest
);
  // Each level makes two rows of three and passes what is left over.
  function automatic int rows_after(int levels);
    rows_after = ROWS;
    for (int i = 0; i < levels; i++) rows_after = 2 * (rows_after / 3) + rows_after % 3;
  endfunction

  for (genvar l = 0; l <= LEVELS; l++) begin : level
    localparam int COUNT = rows_after(l);
    logic [COUNT*BITS-1:0] row;
    if (l == 0) begin : first
      assign row = rows;
    end else begin : adders
      localparam int ABOVE = rows_after(l - 1);
      for (genvar i = 0; i < ABOVE / 3; i++) begin : triple
        logic [BITS-1:0] a, b, c, carry;
        assign a = level[l-1].row[(3*i+0)*BITS+:BITS];
        assign b = level[l-1].row[(3*i+1)*BITS+:BITS];
        assign c = level[l-1].row[(3*i+2)*BITS+:BITS];
        assign carry = (a & b) | (a & c) | (b & c);
        assign row[(2*i+0)*BITS+:BITS] = a ^ b ^ c;
        assign row[(2*i+1)*BITS+:BITS] = carry << 1;
      end
      for (genvar i = 0; i < ABOVE % 3; i++) begin : over
        assign row[(2*(ABOVE/3)+i)*BITS+:BITS] = level[l-1].row[(3*(ABOVE/3)+i)*BITS+:BITS];
      end
    end
  end
  assign rest = level[LEVELS].row;
endmodule
